"""`codec-slm demo`."""

import os
import tempfile

from recipes.demo.limits import DemoLimits

_LIMITS = DemoLimits()


def demo_command(
    model: str = "slm-tiny",
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: DemoLimits = _LIMITS,
    device: str = "auto",
) -> None:
    """A web page: a recording through the codec, text to speech, a recording continued. Until Ctrl-C or SIGTERM.

    Args:
        model: name of a bundled model, a directory (a training run's too), or a hub id; its codec comes with it.
        host: address to listen on; by default this machine alone can reach it.
        port: and its port.
        limits: what the page takes.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec.runs import UserError

    with tempfile.TemporaryDirectory(prefix="codec-slm-demo-") as folder:
        # before gradio is imported: uploads and results lie here, nothing else is served, and all goes at the end
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            import gradio  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise UserError(f"demo needs {error.name}: pip install 'codec-slm[demo]'") from None
        from recipes.commands.common import load_slm_on
        from recipes.demo.page import create_app
        from recipes.serve.running import run_until_stopped, share_cores

        speaker = load_slm_on(model, device)
        share_cores(limits.concurrent)
        speaker.warm_up()
        run_until_stopped(create_app(speaker, limits), host, port, patience_seconds=10)
