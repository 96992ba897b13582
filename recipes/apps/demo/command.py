"""`codec-slm demo`."""

import os
import tempfile

from recipes.apps.demo.limits import DemoLimits

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
    from recipes.apps.serve.running import check_installed, run_application

    check_installed("demo", ["gradio", "uvicorn"])
    with tempfile.TemporaryDirectory(prefix="codec-slm-demo-") as folder:
        # before gradio is imported: uploads and results lie here, nothing else is served, and all goes at the end
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from recipes.apps.demo.page import create_app

        run_application(
            lambda speaker: create_app(speaker, limits),
            model,
            device,
            host,
            port,
            limits.concurrent,
            patience_seconds=10,
        )
