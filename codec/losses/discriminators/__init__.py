"""Discriminators of waveforms, by name."""

from codec.losses.discriminators.base import Discriminator, DiscriminatorOutput, Game
from codec.losses.discriminators.building import DISCRIMINATORS, build_discriminators
from codec.losses.discriminators.dac import DACDiscriminator, DACDiscriminatorConfig
from codec.losses.discriminators.multi_period import MultiPeriodConfig, MultiPeriodDiscriminator
from codec.losses.discriminators.multi_resolution import MultiResolutionConfig, MultiResolutionDiscriminator

__all__ = [
    "DISCRIMINATORS",
    "DACDiscriminator",
    "DACDiscriminatorConfig",
    "Discriminator",
    "DiscriminatorOutput",
    "Game",
    "MultiPeriodConfig",
    "MultiPeriodDiscriminator",
    "MultiResolutionConfig",
    "MultiResolutionDiscriminator",
    "build_discriminators",
]
