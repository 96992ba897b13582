"""Adversarial losses: what a discriminator and a generator learn from each other (arXiv 2507.18897, section 3.4).

Two games, as each discriminator was published: hinge losses and feature matching averaged over the sub-discriminators
(multi-period, multi-resolution; as in Vocos), least squares and feature matching summed over them (DAC).

A loss is a weighted sum over rows of the mean over what the row owns of a map; the weights are the row's frames over
their total. So parts of a batch add up, and rows of equal length give the published means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.losses.discriminators import DiscriminatorOutput, Game
from codec.nn.precision import at_least_float32

Outputs = Sequence[DiscriminatorOutput]


@dataclass(frozen=True)
class Rows:
    """What the rows of a judged batch own, and how much they count."""

    share: Tensor  # (batch,) of the batch's samples that are the row's own, from its start
    weight: Tensor  # (batch,) the row's frames over the frames of the whole update

    def mean(self, values: Tensor) -> Tensor:
        """Weighted sum over rows of the mean over a row's own positions: (batch, channels, time, rest) -> scalar."""
        channels, time, rest = values.shape[1:]
        owned = torch.ceil(self.share * time).clamp(1, time)  # (batch,)
        mask = torch.arange(time, device=values.device) < owned[:, None]
        dtype = torch.promote_types(values.dtype, torch.float32)  # 16 bits are not enough for a sum
        sums = (values.sum(dim=(1, 3), dtype=dtype) * mask).sum(dim=1)  # (batch,)
        return (self.weight * sums / (owned * channels * rest)).sum()


@dataclass(frozen=True)
class GeneratorLosses:
    """What the generator learns from one discriminator."""

    adversarial: Tensor  # scalar
    feature_matching: Tensor  # scalar


@dataclass(frozen=True)
class DiscriminatorLosses:
    """What one discriminator learns, and how often it is right: shares of the scores, averaged over its parts."""

    loss: Tensor  # scalar
    accuracy_real: Tensor  # scalar
    accuracy_fake: Tensor  # scalar


def generator_losses(game: Game, real: Outputs, fake: Outputs, rows: Rows) -> GeneratorLosses:
    """The generator's side; `real` is a constant."""
    over = _mean if game == "hinge" else _sum
    return GeneratorLosses(
        adversarial=over([rows.mean(_wants_high(game, out.score)) for out in fake]),
        feature_matching=over(
            [
                _sum(
                    [
                        rows.mean((b - a.detach()).abs())
                        for a, b in zip(one.features, other.features, strict=True)
                    ]
                )
                for one, other in zip(real, fake, strict=True)
            ]
        ),
    )


def discriminator_losses(game: Game, real: Outputs, fake: Outputs, rows: Rows) -> DiscriminatorLosses:
    """The discriminator's side; `fake` must come from audio without a graph behind it."""
    over = _mean if game == "hinge" else _sum
    middle = 0.0 if game == "hinge" else 0.5  # scores above are taken for recordings
    return DiscriminatorLosses(
        loss=over(
            [
                rows.mean(_wants_high(game, one.score)) + rows.mean(_wants_low(game, other.score))
                for one, other in zip(real, fake, strict=True)
            ]
        ),
        accuracy_real=_mean([rows.mean((out.score.detach() > middle).float()) for out in real]),
        accuracy_fake=_mean([rows.mean((out.score.detach() <= middle).float()) for out in fake]),
    )


def _wants_high(game: Game, score: Tensor) -> Tensor:
    score = at_least_float32(score)
    return (1 - score).relu() if game == "hinge" else (1 - score).square()


def _wants_low(game: Game, score: Tensor) -> Tensor:
    score = at_least_float32(score)
    return (1 + score).relu() if game == "hinge" else score.square()


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
