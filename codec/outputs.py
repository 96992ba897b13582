"""What codecs give: named results, the same for all of them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

ALWAYS_SET: Any = None  # ModelOutput insists on defaults; no output leaves a field with this one unset


@dataclass
class CodecEncoderOutput(ModelOutput):
    """What `encode` gives."""

    audio_codes: Tensor = ALWAYS_SET  # (batch, num_quantizers, frames) int64
    frame_mask: Tensor = ALWAYS_SET  # (batch, frames) bool, True for a row's own frames


@dataclass
class CodecLatentOutput(ModelOutput):
    """What `encode_to_latent` gives."""

    latent: Tensor = ALWAYS_SET  # (batch, frames, dim) before the quantizer
    frame_mask: Tensor = ALWAYS_SET  # (batch, frames) bool


@dataclass
class CodecDecoderOutput(ModelOutput):
    """What `decode` gives."""

    audio_values: Tensor = ALWAYS_SET  # (batch, 1, frames * hop_length)
    # (batch, mel frames, n_mels) natural-log mel, as the vocoder expects it; None where audio was joined from windows
    # or the decoder makes the waveform without a mel between
    mel: Tensor | None = None


@dataclass
class CodecOutput(ModelOutput):
    """What a training pass gives; a pass through some of the parts leaves the others' fields None."""

    frame_mask: Tensor = ALWAYS_SET  # (batch, frames)
    audio_values: Tensor | None = None  # (batch, 1, frames * hop_length)
    mel: Tensor | None = None  # (batch, mel frames, n_mels) of the decoder
    audio_codes: Tensor | None = None  # (batch, num_quantizers, frames)
    quantized: Tensor | None = (
        None  # (batch, frames, dim): the stream of the first quantizer, for distillation
    )
    vq_loss: Tensor | None = None  # scalar
    commitment: Tensor | None = None  # scalar: mean squared distance of latent and code, first quantizer
