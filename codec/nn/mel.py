"""Log-mel spectrograms: one definition for encoders, decoders, vocoders, losses and metrics, and w2v-BERT 2.0's.

And their level: what is coded does not depend on how loud a recording is.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from codec.nn.kernels import at_least_float32
from codec.nn.sequences import StreamState, windows_input

NORMAL_LEVEL = 2.0
"""Level of normalised speech, as a magnitude: peaks of speech are then near half of full scale."""


class RunningLevel(nn.Module):
    """Divides spectra by a running estimate of the speech level, so that louder copies give the same codes.

    The level of a frame is the highest short-term power up to that frame, and falls by `decay_db` a second. It is
    causal and does not depend on chunks: a stream and a whole file get the same levels. It never falls below
    `floor_db`, the level before anybody speaks.
    """

    def __init__(
        self,
        frame_rate: float,
        window_seconds: float = 0.125,
        decay_db: float = 1.0,
        floor_db: float = -65.0,
    ):
        super().__init__()
        self.window = max(1, round(window_seconds * frame_rate))  # frames over which power is averaged
        self.decay = decay_db / 10.0 / frame_rate  # log10 of power, per frame
        self.floor = floor_db / 10.0  # log10 of power

    def forward(self, magnitudes: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, frames, bands) -> the same, relative to the level."""
        return magnitudes * torch.pow(10.0, -self.levels(magnitudes, state) / 2)[..., None].to(magnitudes)

    def levels(self, magnitudes: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, frames, bands) -> the level of each frame, (batch, frames) float64, log10 of power."""
        power = magnitudes.square().sum(dim=2, keepdim=True)  # (batch, frames, 1)
        power = windows_input(power, self, state, left=self.window - 1, right=0)
        batch, frames = magnitudes.shape[:2]
        held = None if state is None else state.get(self, "level")
        if held is None:
            held = magnitudes.new_full((batch, 1), self.floor, dtype=torch.float64)
        if frames == 0:
            return held[:, :0]
        level = power[..., 0].unfold(1, self.window, 1).mean(dim=-1).clamp_min(1e-20).log10().double()
        steps = torch.arange(1, frames + 1, device=level.device, dtype=torch.float64) * self.decay
        # max over s <= t of (level_s - decay * (t - s)): a running maximum of what has been raised by the decay
        raised = torch.cat([held, level + steps], dim=1).cummax(dim=1).values[:, 1:] - steps
        levels = raised.clamp_min(self.floor)
        if state is not None:
            state.put(self, levels[:, -1:], "level")
        return levels


@dataclass(frozen=True)
class MelConfig:
    """The definition of a log-mel spectrogram: what an encoder starts from, or a vocoder expects.

    Sizes in samples, frequencies in Hz. Magnitudes are raised to `power` before the filter bank; the result is floored,
    then logged (natural). `power_offset` is added to squared magnitudes before anything else, as some vocoders were
    trained. `alignment` says where frame m is centred: "same" at (m + 1/2) * hop_length, "center" at m * hop_length.
    `padding` fills the half windows beyond the ends.
    """

    sampling_rate: int = 24_000
    n_fft: int = 1_000
    hop_length: int = 250
    n_mels: int = 100
    f_min: float = 0.0
    f_max: float = 12_000.0
    mel_scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["slaney"] | None = "slaney"
    power: float = 1.0
    power_offset: float = 0.0
    floor: float = 1e-5
    alignment: Literal["same", "center"] = "same"
    padding: Literal["reflect", "zeros"] = "reflect"

    @property
    def left_padding(self) -> int:
        """Samples before the first one that the first frame sees."""
        return (self.n_fft - self.hop_length) // 2 if self.alignment == "same" else self.n_fft // 2

    @property
    def right_padding(self) -> int:
        """Samples behind the last one that the last frame sees."""
        if self.alignment == "same":
            return self.n_fft - self.hop_length - self.left_padding
        return self.n_fft // 2


class LogMel(nn.Module):
    """Natural-log mel spectrogram of a waveform; float32 whatever the autocast, for 16 bits spoil STFT and log."""

    window: Tensor
    filters: Tensor

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        # constants of the definition, not weights: never saved, rebuilt with the module
        self.register_buffer("window", torch.empty(config.n_fft), persistent=False)
        self.register_buffer("filters", torch.empty(config.n_fft // 2 + 1, config.n_mels), persistent=False)
        if not self.window.is_meta:
            self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill in window and filter bank; `from_pretrained` builds modules without data and calls this again."""
        config = self.config
        filters = torchaudio.functional.melscale_fbanks(
            config.n_fft // 2 + 1,
            config.f_min,
            config.f_max,
            config.n_mels,
            config.sampling_rate,
            norm=config.norm,
            mel_scale=config.mel_scale,
        )
        self.window.copy_(torch.hann_window(config.n_fft))
        self.filters.copy_(filters)

    def forward(
        self, waveform: Tensor, state: StreamState | None = None, level: RunningLevel | None = None
    ) -> Tensor:
        """(batch, samples) -> (batch, frames, n_mels), relative to the running `level` where there is one.

        With a state, `waveform` is the next chunk of a stream ("zeros" padding only); the frames whose windows are
        complete come out.
        """
        config = self.config
        with torch.autocast(waveform.device.type, enabled=False):
            x = at_least_float32(waveform)
            if state is None and config.padding == "reflect":
                x = reflect_pad(x, config.left_padding, config.right_padding)
            else:
                x = windows_input(
                    x,
                    self,
                    state,
                    left=config.left_padding,
                    right=config.right_padding,
                    stride=config.hop_length,
                )
            if x.shape[1] < config.n_fft:
                return x.new_zeros(x.shape[0], 0, config.n_mels)
            window, filters = self.window.to(x.dtype), self.filters.to(x.dtype)
            spectrum = torch.stft(
                x, config.n_fft, config.hop_length, window=window, center=False, return_complex=True
            )  # (batch, bins, frames)
            if config.power_offset:
                spectrum = (spectrum.real.square() + spectrum.imag.square() + config.power_offset).sqrt()
            else:
                spectrum = spectrum.abs()
            if config.power != 1.0:
                spectrum = spectrum**config.power
            mel = spectrum.transpose(1, 2) @ filters  # (batch, frames, n_mels)
            if level is not None:
                mel = level(mel, state)
            return mel.clamp_min(config.floor).log()


def reflect_pad(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect (batch, samples) at both ends; what is too short to reflect is first extended by zeros."""
    needed = max(left, right) + 1
    if x.shape[1] >= needed:
        return F.pad(x, (left, right), mode="reflect")
    padded = F.pad(x, (0, needed - x.shape[1]))
    return F.pad(padded, (left, right), mode="reflect")[:, : left + x.shape[1] + right]


KALDI_RATE = 16_000  # Hz
KALDI_WINDOW, KALDI_HOP, KALDI_FFT, KALDI_BANDS = 400, 160, 512, 80  # samples
KALDI_FLOOR = 1.192092955078125e-07
KALDI_STACK = 2  # frames side by side
KALDI_STRIDE = KALDI_STACK * KALDI_HOP  # samples, of a stacked frame
KALDI_RECEPTIVE_FIELD = KALDI_WINDOW + (KALDI_STACK - 1) * KALDI_HOP


def stacked_filterbank(waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Kaldi's log-mel filter bank, normalised per band and stacked in pairs: the input of w2v-BERT 2.0.

    (batch, samples) at 16 kHz, each row's own (batch,) samples -> (batch, frames, 160), mask (batch, frames). Every
    band has mean 0 and deviation 1 over a row's own frames. Rows shorter than a stacked frame are taken with the zeros
    behind them. As `SeamlessM4TFeatureExtractor`, on any device.
    """
    waveform = F.pad(waveform, (0, max(0, KALDI_RECEPTIVE_FIELD - waveform.shape[1])))
    frames = waveform.unfold(1, KALDI_WINDOW, KALDI_HOP) * 2**15  # (batch, frames, window), in 16-bit steps
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = (
        torch.hann_window(KALDI_WINDOW, periodic=False, device=waveform.device, dtype=waveform.dtype) ** 0.85
    )
    spectrum = torch.fft.rfft((frames - 0.97 * before) * window, KALDI_FFT).abs().square()
    mel = (spectrum @ _kaldi_filters(waveform)).clamp_min(KALDI_FLOOR).log()  # (batch, frames, bands)
    own = ((lengths.clamp_min(KALDI_RECEPTIVE_FIELD) - KALDI_WINDOW) // KALDI_HOP + 1).clamp(max=mel.shape[1])
    mask = (torch.arange(mel.shape[1], device=mel.device) < own[:, None])[..., None]
    mean = (mel * mask).sum(dim=1, keepdim=True) / own[:, None, None]
    squares = ((mel - mean).square() * mask).sum(dim=1, keepdim=True)
    variance = squares / (own[:, None, None] - 1)
    mel = (mel - mean) * torch.rsqrt(variance + 1e-7) * mask
    count = mel.shape[1] // KALDI_STACK
    stacked = mel[:, : count * KALDI_STACK].reshape(len(mel), count, KALDI_STACK * KALDI_BANDS)
    return stacked, mask[:, KALDI_STACK - 1 :: KALDI_STACK, 0][:, :count]


def _kaldi_filters(like: Tensor) -> Tensor:
    """(bins, bands): triangles on Kaldi's mel scale, drawn in mels."""

    def mel(frequency: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(frequency / 700.0)

    bins = mel(torch.linspace(0, KALDI_RATE / 2, KALDI_FFT // 2 + 1, dtype=torch.float64))
    low, high = mel(torch.tensor([20.0, KALDI_RATE / 2], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, KALDI_BANDS + 2, dtype=torch.float64)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).to(like.device, like.dtype)
