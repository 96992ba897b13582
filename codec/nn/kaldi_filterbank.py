"""Kaldi's log-mel filter bank, normalised per band and stacked in pairs: what w2v-BERT 2.0 hears."""

import torch
import torch.nn.functional as F
from torch import Tensor

RATE = 16_000  # Hz
WINDOW, HOP, FFT, BANDS = 400, 160, 512, 80  # samples
FLOOR = 1.192092955078125e-07
STACK = 2  # frames side by side
STRIDE, RECEPTIVE_FIELD = STACK * HOP, WINDOW + (STACK - 1) * HOP  # samples, of a stacked frame


def stacked_filterbank(waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, samples) at 16 kHz, each row's own (batch,) samples -> (batch, frames, 160), mask (batch, frames).

    Every band has mean 0 and deviation 1 over a row's own frames. Rows shorter than a stacked frame are taken with the
    zeros behind them. As `SeamlessM4TFeatureExtractor`, on any device.
    """
    waveform = F.pad(waveform, (0, max(0, RECEPTIVE_FIELD - waveform.shape[1])))
    frames = waveform.unfold(1, WINDOW, HOP) * 2**15  # (batch, frames, window), in 16-bit steps
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = torch.hann_window(WINDOW, periodic=False, device=waveform.device, dtype=waveform.dtype) ** 0.85
    spectrum = torch.fft.rfft((frames - 0.97 * before) * window, FFT).abs().square()
    mel = (spectrum @ _filters(waveform)).clamp_min(FLOOR).log()  # (batch, frames, bands)
    own = ((lengths.clamp_min(RECEPTIVE_FIELD) - WINDOW) // HOP + 1).clamp(max=mel.shape[1])
    mask = (torch.arange(mel.shape[1], device=mel.device) < own[:, None])[..., None]
    mean = (mel * mask).sum(dim=1, keepdim=True) / own[:, None, None]
    squares = ((mel - mean).square() * mask).sum(dim=1, keepdim=True)
    variance = squares / (own[:, None, None] - 1)
    mel = (mel - mean) * torch.rsqrt(variance + 1e-7) * mask
    count = mel.shape[1] // STACK
    stacked = mel[:, : count * STACK].reshape(len(mel), count, STACK * BANDS)
    return stacked, mask[:, STACK - 1 :: STACK, 0][:, :count]


def _filters(like: Tensor) -> Tensor:
    """(bins, bands): triangles on Kaldi's mel scale, drawn in mels."""

    def mel(frequency: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(frequency / 700.0)

    bins = mel(torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))
    low, high = mel(torch.tensor([20.0, RATE / 2], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).to(like.device, like.dtype)
