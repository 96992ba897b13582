"""Settings of the losses and the discriminators."""

from dataclasses import dataclass, field

from codec.foundation.errors import UserError


@dataclass
class DiscriminatorWeights:
    """Weights of what the generator learns from one discriminator (which learns either way, at weight 1)."""

    adversarial: float = 1.0
    """Weight of the adversarial loss."""
    feature_matching: float = 1.0
    """Weight of the feature matching loss."""

    def __post_init__(self) -> None:
        if (
            min(self.adversarial, self.feature_matching) < 0
            or max(self.adversarial, self.feature_matching) == 0
        ):
            raise UserError(
                f"a discriminator has weights adversarial {self.adversarial}, feature_matching "
                f"{self.feature_matching}: none may be below 0, and one must be above"
            )


@dataclass
class LossWeights:
    """Weight of each loss. A loss of weight 0 is not computed."""

    mel: float = 45.0
    """L1 of the mel decoder's log-mel (arXiv 2507.18897, section 3.4)."""
    waveform_mel: float = 0.0
    """L1 of the final waveform's log-mel; published: 45."""
    multi_scale: float = 0.0
    """L1 of log-mels and log magnitudes of the final waveform, over several window lengths."""
    multi_scale_mel: float = 0.0
    """L1 of the final waveform's log10-mels, summed over DAC's seven window lengths; HybridCodec: 15."""
    vq: float = 1_000.0
    """Codebook and commitment loss of the quantizer."""
    distillation: float = 0.0
    """Distillation from a speech SSL model; published: 10."""
    ctc: float = 0.0
    """CTC loss of the transcript's characters on the first quantizer's stream; it needs no teacher."""
    recogniser: float = 0.0
    """What a frozen recogniser hears differently in the codec's speech: in the waveform if the vocoder runs, else in
    the mel decoder's mel."""
    discriminators: dict[str, DiscriminatorWeights] = field(default_factory=dict)
    """By name: multi_period, multi_resolution, dac, multi_scale_stft, which judge the waveform, and mel, which judges
    the mel decoder's mel. HH-Codec: the first three at weights of 1; HybridCodec: multi_period and multi_scale_stft,
    feature matching at 2."""

    def __post_init__(self) -> None:
        # those of an override on the command line come as plain dictionaries
        self.discriminators = {
            name: DiscriminatorWeights(**weights) if isinstance(weights, dict) else weights
            for name, weights in self.discriminators.items()
        }

    @property
    def need_waveform(self) -> bool:
        """Whether the vocoder has to run."""
        spectral = self.waveform_mel, self.multi_scale, self.multi_scale_mel
        return max(spectral) > 0 or bool(self.discriminators.keys() - {"mel"})


@dataclass(frozen=True)
class MultiPeriodConfig:
    """Multi-period discriminator; published: 41 M parameters."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Samples."""
    channels: tuple[int, ...] = (32, 128, 512, 1_024, 1_024)
    """Width of each layer; all but the last have stride 3."""


@dataclass(frozen=True)
class MultiResolutionConfig:
    """Multi-resolution discriminator; published: 0.6 M parameters."""

    fft_sizes: tuple[int, ...] = (1_024, 2_048, 512)
    """Samples; the hop is a quarter."""
    channels: int = 64
    """Width of all layers."""


@dataclass(frozen=True)
class DACDiscriminatorConfig:
    """Discriminator of the Descript Audio Codec; published: periods and bands, 42 M parameters. Scales are optional."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Samples."""
    period_channels: tuple[int, ...] = (32, 128, 512, 1_024, 1_024)
    """Width of each layer of a period's part."""
    rates: tuple[int, ...] = ()
    """Scales: 1 is for all samples, 2 for half the sampling rate."""
    scale_channels: tuple[int, ...] = (16, 64, 256, 1_024, 1_024, 1_024)
    """Width of each layer of a scale's part; all but the first and last have stride 4 and groups of 4 channels."""
    fft_sizes: tuple[int, ...] = (2_048, 1_024, 512)
    """Samples; the hop is a quarter."""
    bands: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    """Shares of the spectrum."""
    band_channels: int = 32
    """Width of all layers of a band's part."""


@dataclass(frozen=True)
class MultiScaleSTFTConfig:
    """EnCodec's multi-scale STFT discriminator; published: 0.5 M parameters."""

    fft_sizes: tuple[int, ...] = (1_024, 2_048, 512, 256, 128)
    """Samples; the hop is a quarter."""
    channels: int = 32
    """Width of all layers."""


@dataclass(frozen=True)
class MelDiscriminatorConfig:
    """Discriminator of log-mels, patch by patch. An L1 alone draws the mean of all likely mels, which sounds dull."""

    channels: int = 24
    """Width of the first layer; the second has twice, the others three times as many."""


DISCRIMINATOR_CONFIGS = {
    "multi_period": MultiPeriodConfig,
    "multi_resolution": MultiResolutionConfig,
    "dac": DACDiscriminatorConfig,
    "multi_scale_stft": MultiScaleSTFTConfig,
    "mel": MelDiscriminatorConfig,
}
