"""`codec-slm serve`."""

from recipes.serve.limits import ServiceLimits

_LIMITS = ServiceLimits()


def serve_command(
    model: str = "slm-tiny",
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServiceLimits = _LIMITS,
    device: str = "auto",
) -> None:
    """Serve encode, decode and speak over HTTP, until SIGTERM or Ctrl-C; what is being answered is still finished.

    Args:
        model: name of a bundled model, a directory (a training run's too), or a hub id; its codec comes with it.
        host: address to listen on; by default this machine alone can reach it.
        port: and its port.
        limits: what is refused.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec.runs import UserError

    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"serve needs {error.name}: pip install 'codec-slm[demo]'") from None
    from recipes.commands.common import load_slm_on
    from recipes.serve.app import create_app
    from recipes.serve.running import run_until_stopped, share_cores

    speaker = load_slm_on(model, device)
    share_cores(limits.concurrent)
    speaker.warm_up()
    run_until_stopped(create_app(speaker, limits), host, port, patience_seconds=60)
