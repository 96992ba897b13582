"""Experiment trackers by name, as accelerate knows them: wandb, trackio, mlflow, comet_ml, aim, clearml, swanlab ..."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from codec.foundation import UserError, plain_config

if TYPE_CHECKING:
    from accelerate import Accelerator

TENSORBOARD = "tensorboard"  # which a run directory keeps itself
_PROJECT = "codec-slm"


def check_trackers(names: list[str]) -> list[str]:
    """The trackers that accelerate is to run, all but TensorBoard.

    Raises UserError for names that it does not know and trackers that are not installed, which it would pass over.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    wanted = [name for name in names if name != TENSORBOARD]
    installed = {str(name) for name in get_available_trackers()}
    for name in wanted:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"no tracker is called {name!r}; accelerate knows {known}")
        if name not in installed:
            raise UserError(f"the tracker {name} is not installed: pip install {name}")
    return wanted


def start_trackers(accelerator: "Accelerator", config: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Begin a tracked run; `options` are what each tracker is begun with, by its name (`{wandb: {name: run-1}}`)."""
    if accelerator.log_with:
        plain = plain_config(config)
        accelerator.init_trackers(
            _PROJECT, config=plain, init_kwargs={name: dict(entry) for name, entry in options.items()}
        )


def track(accelerator: "Accelerator", step: int, values: Mapping[str, float]) -> None:
    """Numbers of one step, to all trackers; what is not finite is left out, not all of them take it."""
    if accelerator.trackers:
        accelerator.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)


def finish_trackers(accelerator: "Accelerator") -> None:
    """Have the trackers send what they hold."""
    # Not accelerator.end_training, which takes down the process group with them.
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
