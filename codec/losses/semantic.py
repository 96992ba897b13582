"""Semantic losses: distillation from a speech SSL model, or CTC of the transcript's characters.

HH-Codec distils by the cosine along time (arXiv 2507.18897, section 3.4), HybridCodec by L2 (arXiv 2606.06743). The
targets that HH-Codec published drift against the stream by up to four frames: both are counted from their starts, at
rates that are not quite multiples of each other. Here both sides are placed by the time of their centres.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedModel

from codec.foundation import UserError
from codec.foundation.quiet import quiet_transformers
from codec.nn.kernels import at_least_float32
from codec.nn.mel import KALDI_RECEPTIVE_FIELD, KALDI_STRIDE, stacked_filterbank
from codec.nn.sequences import lengths_from_mask, mask_from_lengths, masked_mean, zero_beyond

TEACHER_RATE = 16_000  # Hz: every public speech SSL model's sampling rate


def load_frozen(load: Callable[[], Any], about: str, device: torch.device | str) -> Any:
    """A model that only listens. Raises UserError, which calls it `about`, where `load` cannot load it."""
    try:
        with quiet_transformers():
            model = load()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load {about}: {' '.join(str(error).split())}") from error
    return model.eval().requires_grad_(False).to(device)


class SSLTeacher:
    """A frozen speech SSL model: waveform to features at given times.

    It is not a module, so that checkpoints do not contain it.
    """

    def __init__(self, name_or_path: str, layer: int | None, device: torch.device | str = "cpu"):
        about = f"the teacher {name_or_path}, a Hugging Face speech model"
        self.model: PreTrainedModel = load_frozen(
            partial(AutoModel.from_pretrained, name_or_path), about, device
        )
        states = self.model.config.num_hidden_layers + 1
        if layer is not None and not -states <= layer < states:
            raise UserError(f"teacher_layer is {layer}: {name_or_path} has hidden states 0 to {states - 1}")
        self.layer = layer
        self.hears_filterbank = self.model.config.model_type == "wav2vec2-bert"
        self.stride, self.receptive_field = (
            (KALDI_STRIDE, KALDI_RECEPTIVE_FIELD)
            if self.hears_filterbank
            else _convolution_geometry(self.model)
        )
        self.normalizes = _wants_normalized(name_or_path)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, waveform: Tensor, samples: Tensor, sampling_rate: int, centres: Tensor) -> Tensor:
        """(batch, samples), each row's own (batch,) samples -> features (batch, len(centres), dim) at times in seconds.

        The features are the mean over all hidden states as in the paper, or one layer. Between two features they are
        interpolated linearly.
        """
        with torch.autocast(waveform.device.type, enabled=False):  # 16 bits spoil audio and its logarithms
            audio = torchaudio.functional.resample(at_least_float32(waveform), sampling_rate, TEACHER_RATE)
            lengths = (samples * TEACHER_RATE + sampling_rate - 1) // sampling_rate
            own = mask_from_lengths(lengths, audio.shape[1])
            if self.normalizes:
                mean = (audio * own).sum(dim=1, keepdim=True) / lengths[:, None]
                variance = ((audio - mean).square() * own).sum(dim=1, keepdim=True) / lengths[:, None]
                audio = (audio - mean) * torch.rsqrt(variance + 1e-7)
            # zeros at the end give every stretch of the recording a feature that is centred on it
            audio = F.pad(audio * own, (0, self.receptive_field))
            if self.hears_filterbank:
                bands, mask = stacked_filterbank(audio, lengths)
        if self.hears_filterbank:
            output = self.model(
                input_features=bands.to(self.model.dtype), attention_mask=mask, output_hidden_states=True
            )
            last = (lengths_from_mask(mask) - 1).clamp_min(0)[:, None]  # no features after it
        else:
            output = self.model(audio.to(self.model.dtype), output_hidden_states=True)
            last = torch.full((len(audio), 1), output.hidden_states[0].shape[1] - 1, device=audio.device)
        states = output.hidden_states
        features = torch.stack(states).mean(dim=0) if self.layer is None else states[self.layer]
        position = (centres * TEACHER_RATE - self.receptive_field / 2) / self.stride
        position = torch.minimum(position.clamp_min(0)[None], last.to(position.dtype))  # (batch, centres)
        below = position.floor().long()
        share = (position - below).to(features.dtype)[..., None]

        def take(index: Tensor) -> Tensor:
            return features.gather(1, index[..., None].expand(-1, -1, features.shape[2]))

        return take(below) * (1 - share) + take(torch.minimum(below + 1, last)) * share


class DistillationHead(nn.Module):
    """HH-Codec's distillation: the stream at the teacher's width and twice the frame rate, against its features."""

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
        own = zero_beyond(quantized, frame_mask).transpose(1, 2)  # (batch, dim, frames)
        predicted = at_least_float32(self.conv_transpose(own))  # (batch, teacher_dim, 2 * frames)
        mask = frame_mask.repeat_interleave(2, dim=1)[:, None]
        cosine = F.cosine_similarity(
            predicted * mask, features.transpose(1, 2).to(predicted.dtype) * mask, dim=-1
        )
        loss = -F.logsigmoid(cosine).mean(dim=-1)  # (batch,)
        # a row weighs by its length, so that parts of a batch add up
        return masked_mean(loss[:, None].expand_as(frame_mask), frame_mask, total_frames)


class FeatureRegression(nn.Module):
    """L2 between the stream and a teacher's standardised features (arXiv 2606.06743), with no learned layer between.

    Only a stream that is not as wide as the teacher, as in small codecs, goes through a linear map.
    Mean and standard deviation of each feature are measured once before training, and are part of the checkpoint.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, teacher_dim: int):
        super().__init__()
        self.proj = nn.Identity() if dim == teacher_dim else nn.Linear(dim, teacher_dim)
        self.register_buffer("mean", torch.zeros(teacher_dim))
        self.register_buffer("std", torch.ones(teacher_dim))

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Set mean and standard deviation to those of features (frames, teacher_dim)."""
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
    """Transcripts of the rows of a batch, and where they are spoken."""

    labels: Tensor  # (batch, characters) int64, numbers in the alphabet, padded
    lengths: Tensor  # (batch,) characters; 0 without a transcript
    spans: Tensor  # (batch, 2) first sample and end of the stretch in which exactly this is spoken

    def to(self, device: torch.device) -> "Transcripts":
        """The same on a device."""
        return Transcripts(self.labels.to(device), self.lengths.to(device), self.spans.to(device))


class CharacterCTC(nn.Module):
    """CTC of the transcript's characters on the stream, for runs without a teacher.

    It makes two predictions a frame: at 25 frames a second some syllables have more characters than frames.
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

        Rows without a transcript, and rows with more characters than predictions, count 0.
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


def distillation_centres(frames: int, frame_rate: float, device: torch.device) -> Tensor:
    """Times in seconds of the head's 2 * frames outputs: centres of half frames."""
    return (torch.arange(2 * frames, device=device) + 0.5) / (2 * frame_rate)


def _convolution_geometry(model: PreTrainedModel) -> tuple[int, int]:
    """(samples between features, samples a feature sees) of a wav2vec 2.0-style front end, from its configuration."""
    kernels, strides = getattr(model.config, "conv_kernel", None), getattr(model.config, "conv_stride", None)
    if not kernels or not strides:
        raise UserError(
            f"{type(model).__name__} does not start from the waveform by convolutions: "
            "distillation needs a model of the wav2vec 2.0, HuBERT or WavLM family, or a w2v-BERT 2.0"
        )
    stride, field = 1, 1
    for kernel, step in zip(kernels, strides, strict=True):
        field += (kernel - 1) * stride
        stride *= step
    return stride, field


def _wants_normalized(name_or_path: str) -> bool:
    """Whether the model was trained on waveforms of mean 0 and deviation 1, as its feature extractor says."""
    try:
        return bool(getattr(AutoFeatureExtractor.from_pretrained(name_or_path), "do_normalize", False))
    except (OSError, ValueError):  # it has none
        return False
