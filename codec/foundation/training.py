"""An exponential moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages a module's parameters; early on it forgets faster, so that the random start leaves no trace.

    At update n (from 1) the decay is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.average = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights as they are now; frozen ones are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self.average[name].lerp_(parameter, 1 - decay)
            else:
                self.average[name].copy_(parameter)

    @torch.no_grad()
    def settle(self, module: nn.Module, prefix: str) -> None:
        """Give the parameters whose names begin with `prefix` their averages, as weights."""
        for name, parameter in module.named_parameters():
            if name.startswith(prefix):
                parameter.copy_(self.average[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within the context the module carries the averaged weights."""
        own = {name: parameter.data for name, parameter in module.named_parameters()}
        for name, parameter in module.named_parameters():
            parameter.data = self.average[name]
        try:
            yield
        finally:
            for name, parameter in module.named_parameters():
                parameter.data = own[name]

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self.average

    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Go on from stored averages."""
        for name, average in self.average.items():
            average.copy_(tensors[name])
        self.updates = updates
