"""Speaker similarity: the cosine of two speaker embeddings, by Resemblyzer, ECAPA-TDNN or a Hugging Face model."""

import warnings
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector
from transformers.utils import cached_file

from codec.foundation.errors import UserError, first_line
from codec.foundation.quiet import quiet_transformers
from codec.metrics.metric import Column, MissingDependency, require
from codec.metrics.spectral import check_pair, resampled

ECAPA_WEIGHTS = "embedding_model.ckpt"
_WINDOW, _HOP = 400, 160  # samples


class ECAPA:
    """ECAPA-TDNN (arXiv 2005.07143) from the weights that SpeechBrain publishes; KeyError where one is missing.

    The network is a few functions of tensors under their published names, whose shapes say all sizes; only the
    dilations are not in them. Everything is (batch, channels, frames).
    weights: the state dict of spkrec-ecapa-voxceleb's embedding_model.ckpt.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        self.weights = {name: tensor.float() for name, tensor in weights.items()}
        self.blocks = next(n for n in count(1) if f"blocks.{n}.tdnn1.conv.conv.weight" not in weights)
        self.bands = weights["blocks.0.conv.conv.weight"].shape[1]

    def __call__(self, bands: Tensor) -> Tensor:
        """Log-mel (batch, bands, frames) -> embeddings (batch, dim)."""
        x = self._tdnn("blocks.0", bands)
        outputs = []
        for block in range(1, self.blocks):
            x = self._block(f"blocks.{block}", x, dilation=block + 1)
            outputs.append(x)
        x = self._tdnn("mfa", torch.cat(outputs, dim=1))
        pooled = self._norm("asp_bn", self._pool("asp", x))  # (batch, 2 * channels, 1)
        return self._conv("fc", pooled)[..., 0]

    def _block(self, name: str, x: Tensor, dilation: int) -> Tensor:
        """Res2Net between two pointwise layers, squeeze and excitation; residual."""
        h = self._tdnn(f"{name}.tdnn1", x)
        width = self.weights[f"{name}.res2net_block.blocks.0.conv.conv.weight"].shape[0]
        first, *groups = h.split(width, dim=1)
        outputs, before = [first], torch.zeros_like(first)
        for index, group in enumerate(groups):
            before = self._tdnn(f"{name}.res2net_block.blocks.{index}", group + before, dilation)
            outputs.append(before)
        h = self._tdnn(f"{name}.tdnn2", torch.cat(outputs, dim=1))
        squeezed = self._conv(f"{name}.se_block.conv1", h.mean(dim=2, keepdim=True)).relu()
        return x + h * self._conv(f"{name}.se_block.conv2", squeezed).sigmoid()

    def _pool(self, name: str, x: Tensor) -> Tensor:
        """Mean and deviation over time, weighted by attention: -> (batch, 2 * channels, 1)."""
        everywhere = torch.full_like(x, 1 / x.shape[2])
        told = torch.cat([x, *(s.expand_as(x) for s in _statistics(x, everywhere))], dim=1)
        attention = self._conv(f"{name}.conv", self._tdnn(f"{name}.tdnn", told).tanh()).softmax(dim=2)
        return torch.cat(_statistics(x, attention), dim=1)

    def _tdnn(self, name: str, x: Tensor, dilation: int = 1) -> Tensor:
        return self._norm(f"{name}.norm", self._conv(f"{name}.conv", x, dilation).relu())

    def _conv(self, name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight, bias = self.weights[f"{name}.conv.weight"], self.weights[f"{name}.conv.bias"]
        padding = dilation * (weight.shape[2] - 1) // 2
        return F.conv1d(F.pad(x, (padding, padding), mode="reflect"), weight, bias, dilation=dilation)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.weights[f"{name}.norm.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weight * x).sum(dim=2, keepdim=True)
    return mean, (weight * (x - mean).square()).sum(dim=2, keepdim=True).clamp_min(1e-12).sqrt()


def ecapa_bands(waveform: Tensor, bands: int, sampling_rate: int = 16_000) -> Tensor:
    """SpeechBrain's features: (batch, samples) -> (batch, bands, frames), in dB, without each band's mean.

    A triangle falls on both sides at the rate at which it should rise on its left, as published.
    """
    window = torch.hamming_window(_WINDOW, device=waveform.device)
    spectrum = torch.stft(waveform, _WINDOW, _HOP, window=window, pad_mode="constant", return_complex=True)
    nyquist = sampling_rate / 2
    mels = torch.linspace(0, 2595 * torch.tensor(1 + nyquist / 700).log10().item(), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.linspace(0, nyquist, _WINDOW // 2 + 1)
    slope = (bins - edges[1:-1, None]) / (edges[1:-1] - edges[:-2])[:, None]
    filters = (1 - slope.abs()).clamp_min(0).to(waveform.device)  # (bands, bins)
    level = 10 * (filters @ spectrum.abs().square()).clamp_min(1e-10).log10()
    level = level.maximum(level.amax(dim=(1, 2), keepdim=True) - 80)
    return level - level.mean(dim=2, keepdim=True)


class ECAPAEmbedder:
    """Speakers told apart by ECAPA-TDNN, of a hub id (speechbrain/spkrec-ecapa-voxceleb) or a directory.

    Raises UserError where its weights cannot be loaded.
    """

    sampling_rate = 16_000

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        self.name, self.device = name, torch.device(device)
        try:
            path: Any = cached_file(name, ECAPA_WEIGHTS)
            self._network = ECAPA(torch.load(Path(path), map_location=self.device, weights_only=True))
            self.embed(torch.ones(self.sampling_rate), self.sampling_rate)  # names what is missing
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"cannot load the speaker model {name}: {first_line(error)}") from error

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (dim,) of length 1, on the CPU; None for less than half a second."""
        samples = resampled(waveform, sampling_rate, self.sampling_rate).to(self.device)
        if len(samples) < self.sampling_rate // 2:
            return None
        bands = ecapa_bands(samples[None], self._network.bands)
        return F.normalize(self._network(bands)[0], dim=0).cpu()


RESEMBLYZER = "resemblyzer"
SHORTEST_SECONDS = 0.5  # below, there is less than the frames that such models look at together


class SpeakerEmbedder(Protocol):
    """What tells speakers apart."""

    name: str
    sampling_rate: int

    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (dim,) of length 1, on the CPU; None for less than half a second."""
        ...


def open_embedder(name: str, device: str | torch.device = "cpu") -> SpeakerEmbedder:
    """`resemblyzer`, SpeechBrain's ECAPA-TDNN, or a speaker verification model of Hugging Face; by hub id or directory.

    Raises MissingDependency without resemblyzer, UserError for a model that cannot be loaded.
    """
    if name == RESEMBLYZER:
        return ResemblyzerEmbedder(device)
    if name.startswith("speechbrain/") or (Path(name) / ECAPA_WEIGHTS).is_file():
        return ECAPAEmbedder(name, device)
    return TransformersEmbedder(name, device)


class ResemblyzerEmbedder:
    """A small LSTM over mel frames (Wan et al., arXiv 1710.10467; the package resemblyzer has the weights).

    Its own preprocessing shortens silences and raises low levels. Raises MissingDependency without resemblyzer.
    """

    name = RESEMBLYZER
    sampling_rate = 16_000

    def __init__(self, device: str | torch.device = "cpu"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated names in its imports
                self._package: Any = require("resemblyzer", "speaker similarity by Resemblyzer")
        except MissingDependency as missing:
            raise MissingDependency(f"{missing} && pip install --no-deps resemblyzer") from missing
        self._encoder = self._package.VoiceEncoder(torch.device(device), verbose=False)

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (256,) of length 1, on the CPU; None for less than half a second of speech."""
        samples = resampled(waveform, sampling_rate, self.sampling_rate)
        shortest = SHORTEST_SECONDS * self.sampling_rate
        if len(samples) < shortest or not samples.any():
            return None
        speech = self._package.preprocess_wav(samples.numpy())
        if len(speech) < shortest:
            return None
        return F.normalize(torch.from_numpy(self._encoder.embed_utterance(speech)).float(), dim=0)


class TransformersEmbedder:
    """A speaker verification model (`AutoModelForAudioXVector`, such as microsoft/wavlm-base-plus-sv).

    Args:
        name: hub id or directory.

    Raises UserError for what is no such model.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        self.name = name
        self.device = torch.device(device)
        try:
            with quiet_transformers():
                self._features: Any = AutoFeatureExtractor.from_pretrained(name)
                model, report = AutoModelForAudioXVector.from_pretrained(
                    name, dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"cannot load the speaker model {name}: {reason} (give the hub id or directory of a Hugging Face "
                "speaker verification model, such as microsoft/wavlm-base-plus-sv)"
            ) from error
        # The loss's own weights are left out of some checkpoints. Anything else that is missing would be random.
        if missing := sorted(key for key in report["missing_keys"] if not key.startswith("objective.")):
            raise UserError(f"{name} is no speaker model: it lacks {missing[0]}")
        self._model: Any = model.eval().to(self.device)
        self.sampling_rate = int(self._features.sampling_rate)

    @torch.inference_mode()
    def embed(self, waveform: Tensor, sampling_rate: int) -> Tensor | None:
        """(samples,) -> (dim,) of length 1, on the CPU; None for less than half a second."""
        samples = resampled(waveform, sampling_rate, self.sampling_rate)
        if len(samples) < SHORTEST_SECONDS * self.sampling_rate:
            return None
        inputs = self._features(samples.numpy(), sampling_rate=self.sampling_rate, return_tensors="pt")
        embedding = self._model(**inputs.to(self.device)).embeddings[0]
        return F.normalize(embedding.float(), dim=0).cpu()


class SpeakerSimilarity:
    """Cosine similarity of two recordings' speakers, -1 to 1; a recording's embedding is kept for the next call."""

    column = Column("speaker_similarity", "speaker similarity", "higher")
    needs_reference = True

    def __init__(self, embedder: SpeakerEmbedder):
        self._embedder = embedder
        self._last: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, reference: Tensor | None, estimate: Tensor, sampling_rate: int) -> float:
        """Both (samples,); what the estimate has beyond the reference is cut. NaN for less than half a second."""
        if reference is None:
            raise ValueError("similar to whom? a reference is needed")
        check_pair(reference, estimate)
        target = self._of_reference(reference, sampling_rate)
        drawn = self._embedder.embed(estimate[: len(reference)], sampling_rate)
        return float(target @ drawn) if target is not None and drawn is not None else float("nan")

    def _of_reference(self, reference: Tensor, sampling_rate: int) -> Tensor | None:
        # several codecs are compared with one recording, one after the other
        if self._last is None or not (
            self._last[0].data_ptr() == reference.data_ptr() and len(self._last[0]) == len(reference)
        ):
            self._last = (reference, self._embedder.embed(reference, sampling_rate))
        return self._last[1]
