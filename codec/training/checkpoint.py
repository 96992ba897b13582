"""Checkpoints of a training run.

A checkpoint is `state.safetensors` (weights, their average, discriminators, optimizers), `state.json` (counters) and
the model's `config.json`, so that `codec.loading.load_trained` can read the codec without the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.foundation import (
    ClippedAdamW,
    WeightAverage,
    load_training_state,
    optimizer_tensors,
    restore_optimizer,
    save_training_state,
)
from codec.loading import AVERAGE, WEIGHTS
from codec.losses.adversarial import Adversary
from codec.training.step import CodecTrainingStep

# prefixes of tensors' names, beside WEIGHTS and AVERAGE
_OPTIMIZER, _ADVERSARY, _ADVERSARY_OPTIMIZER = "optimizer/", "adversary/", "adversary_optimizer/"


@dataclass
class TrainedState:
    """Everything in a training run that changes."""

    step_module: CodecTrainingStep
    optimizer: ClippedAdamW
    average: WeightAverage | None
    adversary: Adversary | None  # all discriminators of the run, frozen in this stage or not
    adversary_optimizer: ClippedAdamW | None  # only in a stage in which discriminators learn

    @property
    def optimizers(self) -> list[ClippedAdamW]:
        """Those of this stage."""
        return [entry for entry in (self.optimizer, self.adversary_optimizer) if entry is not None]


def save_checkpoint(directory: Path, state: TrainedState, counters: Mapping[str, Any]) -> None:
    """Write what the run needs to resume bit for bit into an existing directory."""
    tensors = _named(WEIGHTS, state.step_module.state_dict())
    tensors |= _named(_OPTIMIZER, optimizer_tensors(state.optimizer))
    if state.average is not None:
        tensors |= _named(AVERAGE, state.average.averages)
    if state.adversary is not None:
        tensors |= _named(_ADVERSARY, state.adversary.state_dict())
    if state.adversary_optimizer is not None:
        tensors |= _named(_ADVERSARY_OPTIMIZER, optimizer_tensors(state.adversary_optimizer))
    own = {
        "average_updates": 0 if state.average is None else state.average.number,
        "skipped": {optimizer.name: optimizer.skipped for optimizer in state.optimizers},
    }
    save_training_state(directory, tensors, {**counters, **own})
    state.step_module.model.config.save_pretrained(directory)


class Checkpoint:
    """A checkpoint that has been read."""

    def __init__(self, directory: Path):
        state = load_training_state(directory)
        self.counters, self._tensors = state.counters, state.tensors

    def restore(self, state: TrainedState) -> None:
        """Put everything back. The optimizers must be those of the checkpoint's stage."""
        state.step_module.load_state_dict(self._under(WEIGHTS))
        restore_optimizer(state.optimizer, self._under(_OPTIMIZER))
        if state.average is not None:
            state.average.number = self.counters["average_updates"]
            saved = self._under(AVERAGE)
            for name, average in state.average.averages.items():
                average.copy_(saved[name])
        if state.adversary is not None:
            state.adversary.load_state_dict(self._under(_ADVERSARY))
        if state.adversary_optimizer is not None:
            restore_optimizer(state.adversary_optimizer, self._under(_ADVERSARY_OPTIMIZER))

        skipped = self.counters.get("skipped", {})  # older checkpoints do not have it
        for optimizer in state.optimizers:
            optimizer.skipped = skipped.get(optimizer.name, 0)

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(prefix)
        }


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
