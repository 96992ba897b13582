"""ECAPA-TDNN, the speaker embedding (arXiv 2005.07143), from the weights that SpeechBrain publishes.

The network is a few functions of tensors under their published names (spkrec-ecapa-voxceleb's embedding_model.ckpt),
whose shapes say all sizes; only the dilations are not in them. Everything is (batch, channels, frames).
"""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import cached_file

from codec.foundation.errors import UserError, first_line
from codec.metrics.spectral import resampled

ECAPA_WEIGHTS = "embedding_model.ckpt"
_WINDOW, _HOP = 400, 160  # samples


class ECAPA:
    """The network of given weights; KeyError where one is missing.

    weights: the published state dict.
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
