"""What a training run leaves: checkpoints to go on from, and the codec that is in a run or a checkpoint.

A checkpoint is `state.safetensors` (weights, their average, discriminators, optimizers), `state.json`
(counters) and the model's `config.json`, so that a codec can be taken out of it without the run around it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codec.base import CodecModel
from codec.families import model_of, read_config
from codec.foundation import (
    RunDirectory,
    UserError,
    load_training_state,
    optimizer_tensors,
    restore_optimizer,
    save_training_state,
)
from codec.loading import CHECKPOINTS, bundled_codecs, read_model
from codec.training.adversary import Adversary
from codec.training.ema import WeightAverage
from codec.training.step import CodecTrainingStep

_CONFIG = "config.json"
_STATE = "state.safetensors"
# what a tensor's name begins with
_WEIGHTS, _OPTIMIZER, _AVERAGE = "model/", "optimizer/", "average/"
_ADVERSARY, _ADVERSARY_OPTIMIZER = "adversary/", "adversary_optimizer/"
_OF_THE_CODEC = "model."  # the codec's place in the training step


@dataclass
class TrainedState:
    """All that moves in a training run."""

    step_module: CodecTrainingStep
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    adversary: Adversary | None  # of all discriminators of the run, at rest in this stage or not
    adversary_optimizer: torch.optim.Optimizer | None  # in a stage in which discriminators learn


def save_checkpoint(directory: Path, state: TrainedState, counters: Mapping[str, Any]) -> None:
    """Write all that the run needs to go on, bit for bit, into an existing directory."""
    tensors = _named(_WEIGHTS, state.step_module.state_dict())
    tensors |= _named(_OPTIMIZER, optimizer_tensors(state.optimizer))
    if state.average is not None:
        tensors |= _named(_AVERAGE, state.average.tensors())
    if state.adversary is not None:
        tensors |= _named(_ADVERSARY, state.adversary.state_dict())
    if state.adversary_optimizer is not None:
        tensors |= _named(_ADVERSARY_OPTIMIZER, optimizer_tensors(state.adversary_optimizer))
    updates = state.average.updates if state.average is not None else 0
    save_training_state(directory, tensors, {**counters, "average_updates": updates})
    state.step_module.model.config.save_pretrained(directory)


class Checkpoint:
    """A checkpoint that has been read."""

    def __init__(self, directory: Path):
        state = load_training_state(directory)
        self.counters, self._tensors = state.counters, state.tensors

    def restore(self, state: TrainedState) -> None:
        """Put everything back; the optimizers must be those of the checkpoint's stage."""
        state.step_module.load_state_dict(self._under(_WEIGHTS))
        restore_optimizer(state.optimizer, self._under(_OPTIMIZER))
        if state.average is not None:
            state.average.restore(self._under(_AVERAGE), self.counters["average_updates"])
        if state.adversary is not None:
            state.adversary.load_state_dict(self._under(_ADVERSARY))
        if state.adversary_optimizer is not None:
            restore_optimizer(state.adversary_optimizer, self._under(_ADVERSARY_OPTIMIZER))

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(prefix)
        }


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def load_trained(
    path: str | Path, checkpoint: Literal["final", "best", "latest"] | None = None
) -> CodecModel:
    """The codec of a run, a checkpoint, a model directory, or a bundled one; float32, not exported on the way.

    Of a run, its result, or without one the latest checkpoint, unless `checkpoint` says which. Out of a checkpoint come
    the averaged weights, as they would be in the result. Raises UserError when there is no such codec.
    """
    path = Path(path)
    if not path.is_dir() and str(path) in bundled_codecs():
        path = CHECKPOINTS / path
    if not path.is_dir():
        raise UserError(
            f"{path} is not there: expected a training run, a model directory or a bundled codec "
            f"({', '.join(bundled_codecs())})"
        )
    run = RunDirectory(path)
    if not run.final.is_dir() and not run.checkpoints.is_dir():
        if checkpoint is not None:
            raise UserError(f"{path} is not a training run: leave out which checkpoint to take")
        return _model_of_checkpoint(path) if (path / _STATE).is_file() else _model_of_directory(path)
    if checkpoint == "final" or (checkpoint is None and run.final.is_dir()):
        if not run.final.is_dir():
            raise UserError(f"the run {path} is not finished: take its latest or best checkpoint")
        return _model_of_directory(run.final)
    found = run.best() if checkpoint == "best" else run.latest()
    if found is None:
        raise UserError(f"the run {path} has no {'scored ' if checkpoint == 'best' else ''}checkpoint yet")
    return _model_of_checkpoint(found)


def _model_of_directory(path: Path) -> CodecModel:
    if not (path / _CONFIG).is_file():
        raise UserError(
            f"{path} holds no codec: expected a training run or a directory with config.json and model.safetensors"
        )
    return read_model(path)


def _model_of_checkpoint(path: Path) -> CodecModel:
    if not (path / _CONFIG).is_file():
        raise UserError(f"{path} has no config.json: go on with its run, whose next checkpoint will have one")
    try:
        model = model_of(read_config(path))
        with safe_open(path / _STATE, framework="pt") as file:
            tensors = {
                name.removeprefix(prefix + _OF_THE_CODEC): file.get_tensor(name)
                for prefix in (_WEIGHTS, _AVERAGE)  # the average, where there is one, over the weights
                for name in file.keys()  # noqa: SIM118  (it is no mapping)
                if name.startswith(prefix + _OF_THE_CODEC)
            }
        model.load_state_dict(tensors)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {' '.join(str(error).split())}") from error
    return model.eval()
