"""Running an application until somebody stops it."""

import os
import signal
import sys
from typing import Any


def share_cores(users: int) -> None:
    """Give each of so many requests its share of the cores: more threads than cores wait for one another.

    What OMP_NUM_THREADS says stands.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // users))


def run_until_stopped(app: Any, host: str, port: int, patience_seconds: int) -> None:
    """Answer requests until SIGTERM (exit status 0) or Ctrl-C; those at work get `patience_seconds` to finish."""
    import uvicorn

    # uvicorn stops in good order, then raises the signal again: without this, whatever was to be tidied up would stay
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"http://{host}:{port}", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=patience_seconds)
