"""Work in stages, each a process with a time of its own: one that fails or hangs takes nothing from the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PATIENCE_SECONDS = 10.0  # to end in good order, within the stage's time
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stage:
    """A command of this Python, `python -m COMMAND...`, and how long it may take."""

    name: str
    seconds: float
    command: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """How a stage ended."""

    name: str
    ended: Literal["done", "failed", "out of time"]
    seconds: float


def run_stage(
    stage: Stage,
    logs: Path,
    environment: Mapping[str, str] | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Outcome:
    """Run it, with its output in `logs/NAME.log`; `meanwhile` is called about every second.

    When its time is nearly up the process gets SIGTERM, upon which training ends with a checkpoint, and in the end it
    and its children are killed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    patience = min(_PATIENCE_SECONDS, stage.seconds / 4)
    with open(logs / f"{stage.name}.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *stage.command],
            cwd=_ROOT, env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        asked = False
        try:
            while process.poll() is None and (spent := time.monotonic() - started) < stage.seconds:
                if not asked and spent > stage.seconds - patience:
                    process.terminate()
                    asked = True
                if meanwhile is not None:
                    meanwhile()
                time.sleep(min(1.0, stage.seconds / 20))
        finally:
            ran_out = asked or process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it left behind
            status = process.wait()
    seconds = time.monotonic() - started
    ended: Literal["done", "failed", "out of time"] = (
        "out of time" if ran_out else "failed" if status else "done"
    )
    print(f"{stage.name}: {ended} after {seconds:.0f} of {stage.seconds:g} s", flush=True)
    return Outcome(stage.name, ended, seconds)
