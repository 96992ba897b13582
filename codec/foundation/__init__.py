"""What training and other long work share: atomic files, run directories, resume, schedules, progress."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.runs.directory import RunDirectory, checkpoint_step, plain_config
    from codec.runs.errors import UserError, first_line
    from codec.runs.files import (
        remove_directory,
        remove_leftovers,
        whole_directory,
        write_bytes,
        write_json,
        write_text,
    )
    from codec.runs.launcher import local_rank, rank, world_size
    from codec.runs.progress import Progress, duration
    from codec.runs.random import generator, seed_globals, torch_generator
    from codec.runs.schedules import Schedule
    from codec.runs.state import (
        TrainingState,
        load_training_state,
        optimizer_tensors,
        restore_optimizer,
        save_training_state,
    )
    from codec.runs.stop import StopSignal

# by module, imported when first asked for: a mistake in a command's arguments is told without waiting for torch
_PUBLIC = {
    "codec.runs.directory": ["RunDirectory", "checkpoint_step", "plain_config"],
    "codec.runs.errors": ["UserError", "first_line"],
    "codec.runs.files": [
        "remove_directory",
        "remove_leftovers",
        "whole_directory",
        "write_bytes",
        "write_json",
        "write_text",
    ],
    "codec.runs.launcher": ["local_rank", "rank", "world_size"],
    "codec.runs.progress": ["Progress", "duration"],
    "codec.runs.random": ["generator", "seed_globals", "torch_generator"],
    "codec.runs.schedules": ["Schedule"],
    "codec.runs.state": [
        "TrainingState",
        "load_training_state",
        "optimizer_tensors",
        "restore_optimizer",
        "save_training_state",
    ],
    "codec.runs.stop": ["StopSignal"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "Progress",
    "RunDirectory",
    "Schedule",
    "StopSignal",
    "TrainingState",
    "UserError",
    "checkpoint_step",
    "duration",
    "first_line",
    "generator",
    "load_training_state",
    "local_rank",
    "optimizer_tensors",
    "plain_config",
    "rank",
    "remove_directory",
    "remove_leftovers",
    "restore_optimizer",
    "save_training_state",
    "seed_globals",
    "torch_generator",
    "whole_directory",
    "world_size",
    "write_bytes",
    "write_json",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
