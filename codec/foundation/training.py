"""What the training loops of codecs and language models share."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from codec.foundation.errors import UserError
from codec.foundation.optimization import AdamWConfig
from codec.foundation.process import world_size

# One process writes checkpoints and speaks samples while the others wait for it, which may take longer than the
# 10 minutes that NCCL allows. A process that dies is noticed by the launcher all the same, at once.
_LONGEST_WAIT = timedelta(hours=2)
_MOST_SKIPPED_UPDATES = 20


# ---- processes and precision


def make_accelerator(precision: str, **settings: Any) -> Accelerator:
    """accelerate's view of the launched processes; mixed precision where `precision` asks for bfloat16.

    precision: "bf16" or "bfloat16"; "auto" is bfloat16 where the device multiplies it natively; anything else is not.
    `settings` go to `Accelerator`. Raises UserError when accelerate does not see the processes that were launched.
    """
    # Without this, processes that torchrun starts on a machine without accelerators would not find each other.
    cpu = not torch.accelerator.is_available()
    device = PartialState(cpu=cpu, timeout=_LONGEST_WAIT).device
    half = precision in ("bf16", "bfloat16") or (precision == "auto" and has_bfloat16(device))
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if half else "no", **settings)
    if accelerator.num_processes != world_size():
        raise UserError(
            f"the launcher started {world_size()} processes, of which accelerate sees {accelerator.num_processes}: "
            "use accelerate launch or torchrun, or start a single process"
        )
    return accelerator


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices natively; elsewhere float32 is faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # AVX-512 BF16 or AMX
    cpu = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and bool(cpu)


def sum_over_processes(values: Tensor, accelerator: Accelerator) -> Tensor:
    """float64 values on the CPU, summed over all processes; the same on all of them."""
    if accelerator.num_processes == 1:
        return values
    return accelerator.reduce(values.to(accelerator.device), "sum").cpu()


# ---- updates


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips the gradient, and skips an update whose gradient is not finite.

    Parameters given as `muon` are moved by Muon instead, with updates as large as AdamW's (arXiv 2502.16982, section
    2.2), so that one learning rate is right for both.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: AdamWConfig,
        eps: float = 1e-8,
        only_matrices_decay: bool = False,
        name: str = "optimizer",
        muon: Iterable[nn.Parameter] = (),
    ):
        """name: of the settings, for the error message."""
        self.clipped = [parameter for parameter in parameters if parameter.requires_grad]
        self.clip_norm, self.name = config.clip_norm or math.inf, name
        self.skipped = 0  # updates in a row
        orthogonal = {parameter for parameter in muon if parameter.requires_grad}
        others = [parameter for parameter in self.clipped if parameter not in orthogonal]
        groups: list[dict[str, Any]] = [{"params": others}]
        if only_matrices_decay:
            groups = [
                {"params": [p for p in others if p.ndim >= 2]},
                {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            ]
        super().__init__(
            groups,
            lr=config.learning_rate,
            betas=config.betas,
            eps=eps,
            weight_decay=config.weight_decay,
            fused=all(parameter.device.type in ("cpu", "cuda") for parameter in self.clipped),
        )
        self.parts: dict[str, torch.optim.Optimizer] = {"optimizer": self}
        if orthogonal:
            self.parts["muon"] = torch.optim.Muon(
                [parameter for parameter in self.clipped if parameter in orthogonal],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )

    def clip(self) -> Tensor:
        """Clip the gradient of all parameters together; returns its norm before, a scalar on the device."""
        norm = nn.utils.clip_grad_norm_(self.clipped, self.clip_norm, foreach=True)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded parameters

    def update(self, learning_rate: float, is_finite: bool, step: int) -> None:
        """Move the weights by their gradients if these are finite, and drop the gradients.

        step: of the run, for the error message. Raises UserError after too many skipped updates in a row.
        """
        if is_finite:
            for part in self.parts.values():
                for group in part.param_groups:
                    group["lr"] = learning_rate
                part.step()
            self.skipped = 0
        else:
            self.skipped += 1
            if self.skipped >= _MOST_SKIPPED_UPDATES:
                raise UserError(
                    f"the gradient has not been finite for {_MOST_SKIPPED_UPDATES} steps, the last of them step "
                    f"{step}: lower {self.name}.learning_rate and start from an earlier checkpoint"
                )
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Leave the weights as they are."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)


class WeightAverage:
    """Exponential moving average of parameters. Early on it forgets faster, so that the random start leaves no trace.

    The decay of update `number` is min(decay, (1 + number) / (10 + number)).
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float):
        self.decay = decay
        self.number = 0  # of the last update
        self.parameters = dict(parameters)
        self.averages = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Take in the weights as they are now. Frozen ones are copied."""
        self.number = number
        decay = min(self.decay, (1 + number) / (10 + number))
        learning = [name for name, parameter in self.parameters.items() if parameter.requires_grad]
        weights = [self.parameters[name].detach() for name in learning]
        torch._foreach_lerp_([self.averages[name] for name in learning], weights, 1 - decay)
        for name in self.parameters.keys() - set(learning):
            self.averages[name].copy_(self.parameters[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and weights: once to use the averages, once more to go on training."""
        for name, parameter in self.parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(held)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the context the averages are the weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def copy_to_weights(self, prefix: str) -> None:
        """Make the averages the weights of the parameters whose names begin with `prefix`."""
        for name, parameter in self.parameters.items():
            if name.startswith(prefix):
                parameter.copy_(self.averages[name])


# ---- speed


class Stopwatch:
    """Seconds of training since the last lap, without pauses for validation and saving."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time within the context does not count."""
        since = time.monotonic()
        yield
        self._began += time.monotonic() - since

    def lap(self) -> float:
        """Seconds since the last lap; starts the next."""
        seconds = time.monotonic() - self._began
        self._began += seconds
        return max(seconds, 1e-9)
