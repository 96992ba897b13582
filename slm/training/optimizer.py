"""AdamW, its parameter groups, and an average of weights."""

import torch
from torch import Tensor, nn

from slm.training.config import OptimizerConfig
from slm.training.sharding import fill


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=_has_fused_kernels(parameters),
    )


class WeightAverage:
    """Exponential moving average of a model's parameters, warmed up: early on it forgets faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and weights: once to use the average, once more to go on training."""
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor]) -> None:
        """Go on from a checkpoint, in which the model holds the average and `weights` (by number) is apart."""
        for index, (parameter, average) in enumerate(zip(self.parameters, self.averages, strict=True)):
            average.copy_(parameter)
            fill(parameter, weights[str(index)])


def _has_fused_kernels(parameters: list[nn.Parameter]) -> bool:
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
