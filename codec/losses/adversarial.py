"""Adversarial training: the losses of generator and discriminators (arXiv 2507.18897, section 3.4).

Each discriminator has the kind of loss that it was published with: hinge losses and feature matching averaged over the
sub-discriminators (multi-period, multi-resolution; as in Vocos), or least squares and feature matching summed over them
(DAC).

A loss is a weighted sum over rows. A row's value is the mean over the positions of a map that the row owns; its weight
is its frames over their total. So parts of a batch add up, and rows of equal length give the published means.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.losses.config import DiscriminatorWeights
from codec.losses.discriminators import Discriminator, DiscriminatorOutput, GANLoss
from codec.nn.kernels import at_least_float32

Outputs = Sequence[DiscriminatorOutput]


@dataclass(frozen=True)
class RowWeights:
    """How much of a batch each row owns, and how much it counts."""

    share: Tensor  # (batch,) of the batch's samples that are the row's own, from its start
    weight: Tensor  # (batch,) the row's frames over the frames of the whole update

    def mean(self, values: Tensor) -> Tensor:
        """(batch, channels, time, rest) -> scalar: weighted sum over rows of the mean over a row's own positions."""
        channels, time, rest = values.shape[1:]
        owned = torch.ceil(self.share * time).clamp(1, time)  # (batch,)
        mask = torch.arange(time, device=values.device) < owned[:, None]
        dtype = torch.promote_types(values.dtype, torch.float32)  # 16 bits are not enough for a sum
        sums = (values.sum(dim=(1, 3), dtype=dtype) * mask).sum(dim=1)  # (batch,)
        return (self.weight * sums / (owned * channels * rest)).sum()


@dataclass(frozen=True)
class GeneratorLosses:
    """Losses of the generator from one discriminator."""

    adversarial: Tensor  # scalar
    feature_matching: Tensor  # scalar


@dataclass(frozen=True)
class DiscriminatorLosses:
    """Loss of one discriminator, and the share of its scores that are right, averaged over its parts."""

    loss: Tensor  # scalar
    accuracy_real: Tensor  # scalar
    accuracy_fake: Tensor  # scalar


def generator_losses(kind: GANLoss, real: Outputs, fake: Outputs, rows: RowWeights) -> GeneratorLosses:
    """Losses of the generator. `real` is a constant."""
    over = _mean if kind == "hinge" else _sum
    return GeneratorLosses(
        adversarial=over([rows.mean(_towards_real(kind, out.score)) for out in fake]),
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


def discriminator_losses(
    kind: GANLoss, real: Outputs, fake: Outputs, rows: RowWeights
) -> DiscriminatorLosses:
    """Losses of the discriminator. `fake` must come from detached audio."""
    over = _mean if kind == "hinge" else _sum
    middle = 0.0 if kind == "hinge" else 0.5  # scores above mean real
    return DiscriminatorLosses(
        loss=over(
            [
                rows.mean(_towards_real(kind, one.score)) + rows.mean(_towards_fake(kind, other.score))
                for one, other in zip(real, fake, strict=True)
            ]
        ),
        accuracy_real=_mean([rows.mean((out.score.detach() > middle).float()) for out in real]),
        accuracy_fake=_mean([rows.mean((out.score.detach() <= middle).float()) for out in fake]),
    )


def _towards_real(kind: GANLoss, score: Tensor) -> Tensor:
    score = at_least_float32(score)
    return (1 - score).relu() if kind == "hinge" else (1 - score).square()


def _towards_fake(kind: GANLoss, score: Tensor) -> Tensor:
    score = at_least_float32(score)
    return (1 + score).relu() if kind == "hinge" else score.square()


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


@dataclass
class AudioPair:
    """Recordings and the codec's versions of them, as discriminators get them: waveforms, or mels with bands for 1."""

    real: Tensor  # (batch, 1, samples)
    fake: Tensor  # (batch, 1, samples)
    lengths: Tensor  # (batch,) samples that are the row's own
    frames: Tensor  # (batch,) codec frames of the row's whole segment: how much it counts

    def detached(self) -> "AudioPair":
        """The same without the graph of the codec's audio."""
        return AudioPair(self.real, self.fake.detach(), self.lengths, self.frames)

    def rows(self, total_frames: Tensor | float) -> RowWeights:
        """The rows' weights in an update of `total_frames`."""
        return RowWeights(share=self.lengths / self.real.shape[-1], weight=self.frames / total_frames)


def crop_pair(audio: AudioPair, samples: int | None, place: float) -> AudioPair:
    """Cut a stretch of `samples` from each row's own audio, or of frames from its mel; None keeps all of it.

    `place` in [0, 1) is the position of the stretch. It is the same for all rows of an update, so the stretches do not
    depend on the number of processes.
    """
    if samples is None or samples >= audio.real.shape[-1]:
        return audio
    choices = (audio.lengths - samples + 1).clamp_min(1)
    # the product may round up to `choices` in float32
    start = torch.minimum((place * choices).long(), choices - 1)
    index = (start[:, None] + torch.arange(samples, device=start.device))[:, None]  # (batch, 1, samples)
    index = index.expand(-1, audio.real.shape[1], -1)
    lengths = audio.lengths.clamp(max=samples)
    return AudioPair(audio.real.gather(2, index), audio.fake.gather(2, index), lengths, audio.frames)


Pairs = Mapping[str, AudioPair]
"""By what discriminators judge: "waveform", "mel", or both."""


class Adversary(nn.Module):
    """All discriminators of a run in one module, for DDP to wrap."""

    def __init__(self, discriminators: nn.ModuleDict):
        super().__init__()
        self.discriminators = discriminators

    def forward(self, pairs: Pairs, names: Iterable[str], total_frames: Tensor | float) -> dict[str, Tensor]:
        """Losses of the discriminators: "loss" is their sum, the other entries are for the log.

        Rows count by their frames over `total_frames`.
        """
        found: dict[str, Tensor] = {}
        loss = torch.zeros((), device=next(self.parameters()).device)
        for name in names:
            discriminator = self._discriminator(name)
            audio = pairs[discriminator.judges]
            rows = audio.rows(total_frames)
            both = torch.cat([audio.real, audio.fake.detach()])
            outputs = discriminator(both, audio.lengths.repeat(2))
            real = [output.rows(0, len(audio.frames)) for output in outputs]
            fake = [output.rows(len(audio.frames), len(both)) for output in outputs]
            losses = discriminator_losses(discriminator.gan_loss, real, fake, rows)
            loss = loss + losses.loss
            found[f"{name}/discriminator"] = losses.loss
            found[f"{name}/accuracy_real"] = losses.accuracy_real
            found[f"{name}/accuracy_fake"] = losses.accuracy_fake
        return found | {"loss": loss}

    def generator_losses(
        self, pairs: Pairs, weights: Mapping[str, DiscriminatorWeights], total_frames: Tensor | float
    ) -> dict[str, Tensor]:
        """Losses of the codec: "loss" is the weighted sum, the other entries are for the log.

        The discriminators' own weights get no gradient.
        """
        found: dict[str, Tensor] = {}
        loss = torch.zeros((), device=next(self.parameters()).device)
        for name, weight in weights.items():
            discriminator = self._discriminator(name)
            audio = pairs[discriminator.judges]
            rows = audio.rows(total_frames)
            with torch.no_grad():
                real = discriminator(audio.real, audio.lengths)
            with _frozen(discriminator):
                fake = discriminator(audio.fake, audio.lengths)
            losses = generator_losses(discriminator.gan_loss, real, fake, rows)
            loss = loss + weight.adversarial * losses.adversarial
            loss = loss + weight.feature_matching * losses.feature_matching
            found[f"{name}/adversarial"] = losses.adversarial
            found[f"{name}/feature_matching"] = losses.feature_matching
        return found | {"loss": loss}

    def _discriminator(self, name: str) -> Discriminator:
        discriminator = self.discriminators[name]
        assert isinstance(discriminator, Discriminator)
        return discriminator


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Within the context the module's weights are constants. Gradients still reach its input."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
