"""The discriminators of a training run: what they are shown, what they and the codec learn."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.losses.adversarial import Rows, discriminator_losses, generator_losses
from codec.losses.discriminators import Discriminator
from codec.losses.reconstruction import DiscriminatorWeights


@dataclass
class Judged:
    """What the discriminators see of a batch: stretches of the recordings, and the same ones from the codec."""

    recording: Tensor  # (batch, 1, samples)
    generated: Tensor  # (batch, 1, samples)
    lengths: Tensor  # (batch,) samples that are the row's own
    frames: Tensor  # (batch,) codec frames of the row's whole segment: how much it counts

    def detached(self) -> "Judged":
        """The same without what lies behind the generated audio."""
        return Judged(self.recording, self.generated.detach(), self.lengths, self.frames)

    def rows(self, total_frames: Tensor | float) -> Rows:
        """How the rows count among the frames of the whole update."""
        return Rows(share=self.lengths / self.recording.shape[-1], weight=self.frames / total_frames)


def judged_stretch(
    recording: Tensor,
    generated: Tensor,
    frames: Tensor,
    hop_length: int,
    samples: int | None,
    place: float,
) -> Judged:
    """Cut the stretch that the discriminators see: (batch, 1, samples) twice, each row's own (batch,) frames.

    `place` in [0, 1) says where in each row's own audio its stretch of `samples` lies. It is the same for all rows of
    an update, so that they are shown the same stretches on however many processes they are.
    """
    own = frames * hop_length
    if samples is None or samples >= recording.shape[-1]:
        return Judged(recording, generated, own, frames)
    choices = (own - samples + 1).clamp_min(1)
    start = torch.minimum(
        (place * choices).long(), choices - 1
    )  # in float32 a product may round up to `choices`
    index = (start[:, None] + torch.arange(samples, device=start.device))[:, None]  # (batch, 1, samples)
    return Judged(recording.gather(2, index), generated.gather(2, index), own.clamp(max=samples), frames)


class Adversary(nn.Module):
    """The discriminators in one module, for DDP to wrap."""

    def __init__(self, discriminators: nn.ModuleDict):
        super().__init__()
        self.discriminators = discriminators

    def forward(
        self, judged: Judged, names: Iterable[str], total_frames: Tensor | float
    ) -> dict[str, Tensor]:
        """What the discriminators learn from a batch: "loss" is the sum of theirs, the other entries are to be logged.

        Every entry is a sum over rows that counts their frames over `total_frames`.
        """
        rows = judged.rows(total_frames)
        both = torch.cat([judged.recording, judged.generated.detach()])
        found: dict[str, Tensor] = {}
        loss = judged.recording.new_zeros(())
        for name in names:
            discriminator = self._discriminator(name)
            outputs = discriminator(both, judged.lengths.repeat(2))
            real = [output.rows(0, len(judged.frames)) for output in outputs]
            fake = [output.rows(len(judged.frames), len(both)) for output in outputs]
            losses = discriminator_losses(discriminator.game, real, fake, rows)
            loss = loss + losses.loss
            found[f"{name}/discriminator"] = losses.loss
            found[f"{name}/accuracy_real"] = losses.accuracy_real
            found[f"{name}/accuracy_fake"] = losses.accuracy_fake
        return found | {"loss": loss}

    def generator_losses(
        self, judged: Judged, weights: Mapping[str, DiscriminatorWeights], total_frames: Tensor | float
    ) -> dict[str, Tensor]:
        """What the codec learns: "loss" is the weighted sum, the other entries are to be logged.

        No gradient reaches the discriminators' own weights.
        """
        rows = judged.rows(total_frames)
        found: dict[str, Tensor] = {}
        loss = judged.recording.new_zeros(())
        for name, weight in weights.items():
            discriminator = self._discriminator(name)
            with torch.no_grad():
                real = discriminator(judged.recording, judged.lengths)
            with _resting(discriminator):
                fake = discriminator(judged.generated, judged.lengths)
            losses = generator_losses(discriminator.game, real, fake, rows)
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
def _resting(module: nn.Module) -> Iterator[None]:
    """Within the context the module's weights are constants; gradients still pass to its input."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
