"""Configurations of vocoders."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from codec.configuration import part_from
from codec.nn.mel import MelConfig


@dataclass(frozen=True)
class VocosConfig:
    """Vocos (arXiv 2306.00814): ConvNeXt on mel frames, then an inverse STFT."""

    kind: Literal["vocos"] = "vocos"
    mel: MelConfig = field(default_factory=MelConfig)
    dim: int = 512
    hidden_dim: int = 1_536
    blocks: int = 8
    kernel_size: int = 7
    # mel frames, in the first convolution; None: half the kernel, in every convolution
    lookahead: int | None = None
    layer_scale: float | None = None  # None: 1 / blocks, as published
    mel_mean: float = 0.0  # what enters the first layer is (mel - mean) / std
    mel_std: float = 1.0

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole."""
        return self.lookahead is not None and self.mel.alignment == "same"

    @property
    def lookahead_samples(self) -> int:
        """Samples that a stream's audio waits for behind the mel frames that are there."""
        return (self.lookahead or 0) * self.mel.hop_length + self.mel.right_padding


@dataclass(frozen=True)
class BigVGANConfig:
    """BigVGAN v2 (arXiv 2206.04658), as published for 24 kHz and 100 bands: `nvidia/bigvgan_v2_24khz_100band_256x`."""

    kind: Literal["bigvgan"] = "bigvgan"
    mel: MelConfig = field(default_factory=lambda: MelConfig(n_fft=1_024, hop_length=256, power_offset=1e-9))
    dim: int = 1_536  # before the first upsampling; each halves it
    upsample_rates: tuple[int, ...] = (4, 4, 2, 2, 2, 2)  # their product is the mel's hop
    upsample_kernel_sizes: tuple[int, ...] = (8, 8, 4, 4, 4, 4)
    block_kernel_sizes: tuple[int, ...] = (3, 7, 11)  # of the AMP blocks behind each upsampling
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3  # of each of them

    def __post_init__(self) -> None:
        if math.prod(self.upsample_rates) != self.mel.hop_length:
            raise ValueError(
                f"BigVGAN's upsample_rates multiply to {math.prod(self.upsample_rates)}: "
                f"they have to make the mel's hop of {self.mel.hop_length} samples"
            )

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole: not with look-ahead in every layer."""
        return False


def vocoder_from(values: dict[str, Any] | None) -> VocosConfig | BigVGANConfig:
    """A vocoder's configuration of the `kind` that a dictionary names, Vocos unless it does.

    Raises ValueError for an unknown kind or field.
    """
    kind = (values or {}).get("kind", "vocos")
    if kind == "bigvgan":
        return part_from(BigVGANConfig, values)
    if kind == "vocos":
        return part_from(VocosConfig, values)
    raise ValueError(f"unknown vocoder kind {kind!r}: expected 'vocos' or 'bigvgan'")
