"""Running an application around a model until somebody stops it."""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from codec.foundation import UserError

if TYPE_CHECKING:
    from slm import SpeechLM


def check_installed(command: str, packages: Sequence[str]) -> None:
    """Raises UserError that names the first of these packages which is missing, and where it comes from."""
    for package in packages:
        # None in sys.modules is what Python itself takes for "cannot be imported"
        there = sys.modules[package] if package in sys.modules else importlib.util.find_spec(package)
        if there is None:
            raise UserError(f"{command} needs {package}: pip install 'codec-slm[demo]'")


def run_application(
    create_app: "Callable[[SpeechLM], Any]",
    model: str,
    device: str,
    host: str,
    port: int,
    concurrent: int,
    patience_seconds: int,
) -> None:
    """Load and warm up a model, and answer requests to its application until SIGTERM or Ctrl-C.

    concurrent: requests that are worked on at once; each gets its share of the cores, unless OMP_NUM_THREADS says
    otherwise, for more threads than cores wait for one another.
    patience_seconds: what those at work get to finish when it is stopped. The exit status after SIGTERM is 0.

    Raises UserError when there is no such model or device.
    """
    import torch
    import uvicorn

    from recipes.cli.common import load_slm_on

    speaker = load_slm_on(model, device)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // concurrent))
    speaker.warm_up()
    # uvicorn stops in good order, then raises the signal again: without this, whatever was to be tidied up would stay
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"http://{host}:{port}", flush=True)
    uvicorn.run(
        create_app(speaker),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=patience_seconds,
    )
