"""Commands that run until they are stopped: demo, serve."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from codec.foundation import UserError
from recipes.apps.config import DemoLimits, ServiceLimits

_DEMO_LIMITS, _SERVICE_LIMITS = DemoLimits(), ServiceLimits()


def demo_command(
    model: str = "slm-tiny",
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: DemoLimits = _DEMO_LIMITS,
    normalize: bool = True,
    language: str | None = None,
    device: str = "auto",
    codec: str | None = None,
) -> None:
    """A web page: a recording through the codec, text to speech, a recording continued. Until Ctrl-C or SIGTERM.

    Args:
        model: name of a bundled model, a directory (a training run's too), or a hub id; its codec comes with it.
        host: address to listen on; by default this machine alone can reach it.
        port: and its port.
        limits: what the page takes.
        normalize: put numbers, dates, money and the like in texts into spoken words first.
        language: by whose rules: en or de; the model's own unless set.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
        codec: what the tab Codec shows; unset: the model's own, and beside slm-tiny hh-codec-any-voice.
    """
    _check_installed("demo", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
    from recipes.apps.demo.page import create_app
    from recipes.apps.server import run_application
    from recipes.loading import load_codec_on, load_slm_on

    if codec is None and model == "slm-tiny":
        codec = "hh-codec-any-voice"  # slm-tiny's own knows four voices, and recordings are of anybody
    create = partial(create_app, codec=None if codec is None else load_codec_on(codec, device))
    load = partial(load_slm_on, model, device, normalize, language)
    run_application(create, load, limits, host, port, patience_seconds=10)


def serve_command(
    model: str = "slm-tiny",
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServiceLimits = _SERVICE_LIMITS,
    normalize: bool = True,
    language: str | None = None,
    device: str = "auto",
    api_key: str | None = None,
    cors: list[str] = [],  # noqa: B006
) -> None:
    """Serve speak, continue, transcribe, encode and decode over HTTP, OpenAI's speech route too, until SIGTERM or
    Ctrl-C; what is being answered is still finished.

    Args:
        model: name of a bundled model, a directory (a training run's too), or a hub id; its codec comes with it.
        host: address to listen on; by default this machine alone can reach it.
        port: and its port.
        limits: what is refused.
        normalize: put numbers, dates, money and the like in texts into spoken words first.
        language: by whose rules: en or de; the model's own unless set.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
        api_key: what requests have to bring as `Authorization: Bearer KEY`; CODEC_SLM_API_KEY unless set.
        cors: origins whose web pages may ask, like https://example.org; "*": all of them.
    """
    _check_installed("serve", ["fastapi", "uvicorn", "prometheus_client"])
    from recipes.apps.serve.app import create_app
    from recipes.apps.server import run_application
    from recipes.loading import load_slm_on

    key = api_key or os.environ.get("CODEC_SLM_API_KEY") or None
    create = partial(create_app, model=Path(model).name, api_key=key, cors=cors)
    load = partial(load_slm_on, model, device, normalize, language)
    run_application(create, load, limits, host, port, patience_seconds=60)


def _check_installed(command: str, packages: Sequence[str]) -> None:
    """Raises UserError that names the first of these packages which is missing, and where it comes from."""
    for package in packages:
        # None in sys.modules is what Python itself takes for "cannot be imported"
        there = sys.modules[package] if package in sys.modules else importlib.util.find_spec(package)
        if there is None:
            raise UserError(f"{command} needs {package}: pip install 'codec-slm[{command}]'")
