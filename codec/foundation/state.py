"""A training run's state as safetensors and JSON: `state.safetensors` and `state.json`, no pickles."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from codec.foundation.errors import UserError
from codec.foundation.files import write_json

_TENSORS = "state.safetensors"
_COUNTERS = "state.json"
# Optimizers keep some numbers as Python objects; they travel as 0-dimensional tensors whose key tells the
# type.
_PYTHON_NUMBERS: dict[str, tuple[type, torch.dtype]] = {
    "bool": (bool, torch.bool),
    "int": (int, torch.int64),
    "float": (float, torch.float64),
}


@dataclass
class TrainingState:
    """What a checkpoint holds besides the model files."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]  # step, epoch, block, hashes: anything JSON can say


def save_training_state(
    directory: str | os.PathLike[str], tensors: Mapping[str, Tensor], counters: Mapping[str, Any]
) -> None:
    """Write tensors and counters into an existing directory, usually one that `whole_directory` gave."""
    directory = Path(directory)
    # safetensors refuses tensors that share memory (tied weights): each is written as its own copy.
    separate = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    save_file(separate, directory / _TENSORS)
    write_json(directory / _COUNTERS, dict(counters))


def load_training_state(
    directory: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> TrainingState:
    """Read what `save_training_state` wrote.

    Raises UserError when the directory is not a checkpoint.
    """
    directory = Path(directory)
    for name in (_TENSORS, _COUNTERS):
        if not (directory / name).is_file():
            raise UserError(f"{directory} is not a checkpoint of a training run: it has no {name}")
    tensors = load_file(directory / _TENSORS, device=str(device))
    return TrainingState(tensors, json.loads((directory / _COUNTERS).read_text(encoding="utf-8")))


def optimizer_tensors(optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, Tensor]:
    """The optimizer's state as a flat dict: `"3/exp_avg"` is the first moment of the fourth parameter.

    Parameters are numbered through the groups in order. The groups' settings (learning rate, betas) are not
    in it: they are the config's and the schedule's. The tensors are the optimizer's own, not copies; sharded
    ones (FSDP2) are gathered on the CPU, one after the other, which every process must take part in; those that
    say `keep=False` only help and are given nothing.

    Raises TypeError for a state entry that is neither a tensor nor a number.
    """
    tensors: dict[str, Tensor] = {}
    for index, (parameter, _) in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if value is None:
                continue  # an unused slot, such as the momentum of SGD without momentum
            if isinstance(value, Tensor):
                tensor = value.full_tensor().cpu() if isinstance(value, DTensor) else value.detach()
                if keep:
                    tensors[f"{index}/{name}"] = tensor
                continue
            kind = type(value).__name__
            if kind not in _PYTHON_NUMBERS:
                raise TypeError(
                    f"{type(optimizer).__name__} keeps a {kind} in its state ({name}), which has no tensor"
                )
            if keep:
                tensors[f"{index}/{name}:{kind}"] = torch.tensor(value, dtype=_PYTHON_NUMBERS[kind][1])
    return tensors


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, bit for bit: the next steps equal those of the run that was
    saved.

    Unlike `Optimizer.load_state_dict` no dtype is changed, so 32-bit moments of 16-bit parameters survive.

    Raises UserError when the state belongs to other parameters; the optimizer is then as it was.
    """
    parameters = list(_parameters(optimizer))
    state: dict[Tensor, dict[str, Any]] = {}
    for key, saved in tensors.items():
        number, _, entry = key.partition("/")
        name, _, kind = entry.partition(":")
        if int(number) >= len(parameters):
            raise _other_parameters(f"entry {key}, but the model has {len(parameters)} parameters")
        parameter, group = parameters[int(number)]
        slots = state.setdefault(parameter, {})
        slots[name] = (
            _PYTHON_NUMBERS[kind][0](saved.item()) if kind else _placed(key, saved, parameter, group)
        )
    optimizer.state.clear()
    optimizer.state.update(state)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield parameter, group


def _placed(key: str, saved: Tensor, parameter: Tensor, group: Mapping[str, Any]) -> Tensor:
    """A copy of a state tensor where the optimizer expects it."""
    # Factored moments (Adafactor) have fewer dimensions, or some of length one.
    if saved.dim() == parameter.dim() and any(
        found not in (1, expected) for found, expected in zip(saved.shape, parameter.shape, strict=True)
    ):
        raise _other_parameters(
            f"{key} of shape {tuple(saved.shape)} for a parameter of {tuple(parameter.shape)}"
        )
    # torch counts steps on the CPU, unless the whole update runs as one kernel or graph on the device.
    if saved.dim() == 0 and not (group.get("fused") or group.get("capturable")):
        return saved.to("cpu", copy=True)
    placed = saved.to(parameter.device, copy=True)
    if isinstance(parameter, DTensor) and saved.shape == parameter.shape:
        return distribute_tensor(placed, parameter.device_mesh, parameter.placements)
    return placed


def _other_parameters(found: str) -> UserError:
    return UserError(
        f"the optimizer state belongs to another model (it has {found}): "
        "resume with the config that the run was started with"
    )
