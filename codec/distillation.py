"""Distillation: the quantized stream is pulled towards the features of a speech SSL model (arXiv 2507.18897, section 3.4).

The published targets drift in time against the stream by up to four frames, for both are counted from their starts at
rates that are not quite multiples; here both sides are placed by the time they are centred at.
"""

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from codec.masks import masked_mean
from codec.runs import UserError

TEACHER_RATE = 16_000  # Hz: every public speech SSL model's sampling rate


class SSLTeacher:
    """A frozen speech SSL model: waveform to features placed in time. Not a module, so that no checkpoint contains it."""

    def __init__(self, name_or_path: str, layer: int | None, device: torch.device | str = "cpu"):
        try:
            self.model: PreTrainedModel = (
                AutoModel.from_pretrained(name_or_path).eval().requires_grad_(False).to(device)
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot load the teacher {name_or_path}: give a Hugging Face speech model ({error})"
            ) from error
        self.layer = layer
        self.stride, self.receptive_field = _convolution_geometry(self.model)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, waveform: Tensor, sampling_rate: int, centres: Tensor) -> Tensor:
        """(batch, samples) -> features (batch, len(centres), dim) at the given times in seconds, by linear interpolation.

        The mean over all hidden states as in the paper, or one layer.
        """
        audio = torchaudio.functional.resample(waveform.float(), sampling_rate, TEACHER_RATE)
        audio = F.pad(audio, (0, self.receptive_field))  # a frame centred on every stretch of the recording
        states = self.model(audio, output_hidden_states=True).hidden_states
        features = torch.stack(states).mean(dim=0) if self.layer is None else states[self.layer]
        position = (centres * TEACHER_RATE - self.receptive_field / 2) / self.stride
        position = position.clamp(0, features.shape[1] - 1)
        below = position.floor().long().clamp(max=features.shape[1] - 2)
        share = (position - below).to(features.dtype)[None, :, None]
        return features[:, below] * (1 - share) + features[:, below + 1] * share


class DistillationHead(nn.Module):
    """Quantized stream to the teacher's width at twice the frame rate, and the loss against its features."""

    def __init__(self, dim: int, teacher_dim: int):
        super().__init__()
        self.conv_transpose = nn.ConvTranspose1d(dim, teacher_dim, 11, stride=2, padding=5, output_padding=1)

    def forward(
        self,
        quantized: Tensor,
        features: Tensor,
        frame_mask: Tensor,
        total_frames: Tensor | float | None = None,
    ) -> Tensor:
        """(batch, frames, dim), (batch, 2 * frames, teacher_dim) -> scalar.

        -log sigmoid(cos), the cosine along time for each feature (SpeechTokenizer, arXiv 2308.16692, equation 3).
        """
        predicted = self.conv_transpose(quantized.transpose(1, 2)).float()  # (batch, teacher_dim, 2 * frames)
        mask = frame_mask.repeat_interleave(2, dim=1)[:, None]
        cosine = F.cosine_similarity(predicted * mask, features.transpose(1, 2).float() * mask, dim=-1)
        loss = -F.logsigmoid(cosine).mean(dim=-1)  # (batch,)
        # a row weighs by its length, so that parts of a batch add up
        return masked_mean(loss[:, None].expand_as(frame_mask), frame_mask, total_frames)


def distillation_centres(frames: int, frame_rate: float, device: torch.device) -> Tensor:
    """Times in seconds of the head's 2 * frames outputs: centres of half frames."""
    return (torch.arange(2 * frames, device=device) + 0.5) / (2 * frame_rate)


def _convolution_geometry(model: PreTrainedModel) -> tuple[int, int]:
    """(samples between features, samples a feature sees) of a wav2vec 2.0-style front end, from its configuration."""
    kernels, strides = getattr(model.config, "conv_kernel", None), getattr(model.config, "conv_stride", None)
    if not kernels or not strides:
        raise UserError(
            f"{type(model).__name__} does not start from the waveform by convolutions: "
            "distillation needs a model of the wav2vec 2.0, HuBERT or WavLM family"
        )
    stride, field = 1, 1
    for kernel, step in zip(kernels, strides, strict=True):
        field += (kernel - 1) * stride
        stride *= step
    return stride, field
