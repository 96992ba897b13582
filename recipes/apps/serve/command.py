"""`codec-slm serve`."""

from recipes.apps.serve.limits import ServiceLimits

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
    from recipes.apps.serve.running import check_installed, run_application

    check_installed("serve", ["fastapi", "uvicorn"])
    from recipes.apps.serve.app import create_app

    run_application(
        lambda speaker: create_app(speaker, limits),
        model,
        device,
        host,
        port,
        limits.concurrent,
        patience_seconds=60,
    )
