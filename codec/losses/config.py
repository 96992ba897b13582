"""Settings of the losses and the discriminators."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MultiPeriodConfig:
    """Published: 41 M parameters."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    channels: tuple[int, ...] = (32, 128, 512, 1_024, 1_024)  # of the layers; all but the last stride by 3


@dataclass(frozen=True)
class MultiResolutionConfig:
    """Published: 0.6 M parameters."""

    fft_sizes: tuple[int, ...] = (1_024, 2_048, 512)  # samples; the hop is a quarter
    channels: int = 64


@dataclass(frozen=True)
class DACDiscriminatorConfig:
    """Published: periods and bands, 42 M parameters; scales are there for whoever wants them."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    period_channels: tuple[int, ...] = (32, 128, 512, 1_024, 1_024)
    rates: tuple[int, ...] = ()  # of the scales: 1 looks at all samples, 2 at half the sampling rate
    # of the scales' layers; all but the first and last stride by 4, and are grouped by 4 input channels
    scale_channels: tuple[int, ...] = (16, 64, 256, 1_024, 1_024, 1_024)
    fft_sizes: tuple[int, ...] = (2_048, 1_024, 512)  # samples; the hop is a quarter
    bands: tuple[tuple[float, float], ...] = (  # shares of the spectrum
        (0.0, 0.1),
        (0.1, 0.25),
        (0.25, 0.5),
        (0.5, 0.75),
        (0.75, 1.0),
    )
    band_channels: int = 32
