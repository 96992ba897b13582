"""Discriminators of waveforms, by name."""

from codec.discriminators.base import Discriminator, DiscriminatorOutput, Game
from codec.discriminators.building import DISCRIMINATORS, build_discriminators
from codec.discriminators.dac import DACDiscriminator, DACDiscriminatorConfig
from codec.discriminators.multi_period import MultiPeriodConfig, MultiPeriodDiscriminator
from codec.discriminators.multi_resolution import MultiResolutionConfig, MultiResolutionDiscriminator

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
