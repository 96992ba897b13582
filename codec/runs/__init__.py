"""What training and other long work share: atomic files, run directories, resume, schedules, progress."""

from codec.runs.directory import RunDirectory, checkpoint_step, plain_config
from codec.runs.errors import UserError
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

__all__ = [
    "Progress",
    "RunDirectory",
    "Schedule",
    "StopSignal",
    "TrainingState",
    "UserError",
    "checkpoint_step",
    "duration",
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
