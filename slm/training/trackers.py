"""Experiment trackers by name, as accelerate knows them: wandb, trackio, mlflow, comet_ml, aim, clearml, swanlab ..."""

import math
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from codec.foundation import UserError, plain_config

TENSORBOARD = "tensorboard"  # the run directory writes it itself
_PROJECT = "codec-slm"


def check_trackers(names: list[str]) -> list[str]:
    """The trackers that accelerate runs: all but TensorBoard.

    Raises UserError for unknown names and trackers that are not installed; accelerate would ignore them.
    """
    wanted = [name for name in names if name != TENSORBOARD]
    installed = {str(name) for name in get_available_trackers()}
    for name in wanted:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"no tracker is called {name!r}; accelerate knows {known}")
        if name not in installed:
            raise UserError(f"the tracker {name} is not installed: pip install {name}")
    return wanted


def start_trackers(accelerator: Accelerator, config: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Start a tracked run. `options` are the arguments of each tracker by its name (`{wandb: {name: run-1}}`)."""
    if accelerator.log_with:
        plain = plain_config(config)
        accelerator.init_trackers(
            _PROJECT, config=plain, init_kwargs={name: dict(entry) for name, entry in options.items()}
        )


def track(accelerator: Accelerator, step: int, values: Mapping[str, float]) -> None:
    """Send the numbers of one step to all trackers, except NaN and infinity: some trackers refuse them."""
    if accelerator.trackers:
        accelerator.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers send what they still hold."""
    # Not accelerator.end_training: it would end the process group too.
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
