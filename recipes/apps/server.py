"""Running an application around a model until somebody stops it."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import uvicorn

from recipes.apps.config import DemoLimits, ServiceLimits
from slm import SpeechLM

Limits = TypeVar("Limits", DemoLimits, ServiceLimits)


def run_application(
    create_app: Callable[[SpeechLM, Limits], Any],
    speaker: SpeechLM,
    limits: Limits,
    host: str,
    port: int,
    patience_seconds: int,
) -> None:
    """Warm up a model, and answer requests to its application until SIGTERM or Ctrl-C.

    Each of the `limits.concurrent` requests gets its share of the cores, unless OMP_NUM_THREADS says otherwise: more
    threads than cores wait for one another. When it is stopped, requests in work get `patience_seconds` to finish. The
    exit status after SIGTERM is 0.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        share = max(1, len(os.sched_getaffinity(0)) // limits.concurrent)
        torch.set_num_threads(min(share, torch.get_num_threads()))
    speaker.warm_up()
    # uvicorn stops in good order, then raises the signal again. Without this, temporary files would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"http://{host}:{port}", flush=True)
    uvicorn.run(
        create_app(speaker, limits),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=patience_seconds,
    )
