"""What pulls a semantic stream towards the words: a teacher's features in L2, or the transcript's characters by CTC."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.masks import masked_mean
from codec.nn.precision import at_least_float32


class FeatureRegression(nn.Module):
    """L2 between a linear map of the stream and a teacher's standardised features (arXiv 2606.06743).

    Mean and deviation of each feature are measured once, before training, and stored with the run.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, teacher_dim: int):
        super().__init__()
        self.proj = nn.Linear(dim, teacher_dim)
        self.register_buffer("mean", torch.zeros(teacher_dim))
        self.register_buffer("std", torch.ones(teacher_dim))

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Take the statistics of features (frames, teacher_dim)."""
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0).clamp_min(1e-5))

    def forward(
        self,
        stream: Tensor,
        features: Tensor,
        frame_mask: Tensor,
        total_frames: Tensor | float | None = None,
    ) -> Tensor:
        """(batch, frames, dim), (batch, 2 * frames, teacher_dim) at half frames -> scalar, mean squared error.

        The two features of a frame are averaged.
        """
        pooled = at_least_float32(features).unflatten(1, (-1, 2)).mean(dim=2)  # (batch, frames, teacher_dim)
        wanted = (pooled - self.mean) / self.std
        predicted = at_least_float32(self.proj(stream))
        return masked_mean((predicted - wanted).square().mean(dim=-1), frame_mask, total_frames)


@dataclass
class Transcripts:
    """What is said in the rows of a batch, and where."""

    labels: Tensor  # (batch, characters) int64, numbers in the alphabet; what is beyond a row's own is unused
    lengths: Tensor  # (batch,) characters; 0 for a row of which nothing is known
    spans: Tensor  # (batch, 2) first sample and end of the stretch in which exactly this is said

    def to(self, device: torch.device) -> "Transcripts":
        """The same on a device."""
        return Transcripts(self.labels.to(device), self.lengths.to(device), self.spans.to(device))


class CharacterCTC(nn.Module):
    """CTC of the transcript's characters on the stream: the stand-in where there is no teacher.

    Two predictions a frame: at 25 frames a second some syllables have more characters than frames.
    """

    STEPS = 2  # a frame

    def __init__(self, dim: int, characters: int):
        super().__init__()
        self.classes = characters + 1  # the last is the blank
        self.proj = nn.Linear(dim, self.STEPS * self.classes)

    def forward(
        self,
        stream: Tensor,
        transcripts: Transcripts,
        hop_length: int,
        total_frames: Tensor | float,
    ) -> Tensor:
        """(batch, frames, dim) -> scalar: negative log likelihood of all rows' characters, over `total_frames`.

        Rows of which nothing is known, and those with more characters than there is room for, count 0.
        """
        batch, frames, _ = stream.shape
        logits = at_least_float32(self.proj(stream)).view(batch, frames * self.STEPS, self.classes)
        log_probabilities = logits.log_softmax(dim=-1)
        # a frame belongs to the span if its centre lies in it
        first, end = ((transcripts.spans + hop_length // 2) // hop_length).clamp(0, frames).unbind(1)
        steps = torch.arange(frames * self.STEPS, device=stream.device)
        place = (first[:, None] * self.STEPS + steps).clamp(max=frames * self.STEPS - 1)
        shifted = log_probabilities.gather(1, place[..., None].expand(-1, -1, self.classes))
        losses = F.ctc_loss(
            shifted.transpose(0, 1),
            transcripts.labels,
            ((end - first) * self.STEPS).clamp_min(1),
            transcripts.lengths,
            blank=self.classes - 1,
            reduction="none",
            zero_infinity=True,
        )
        return (losses * (transcripts.lengths > 0)).sum() / total_frames
