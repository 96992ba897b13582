"""Discriminators from their names and what a run changes of their published configuration."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from codec.configuration import part_from
from codec.foundation import UserError, seed_globals
from codec.losses.discriminators.base import Discriminator
from codec.losses.discriminators.dac import DACDiscriminator, DACDiscriminatorConfig
from codec.losses.discriminators.multi_period import MultiPeriodConfig, MultiPeriodDiscriminator
from codec.losses.discriminators.multi_resolution import MultiResolutionConfig, MultiResolutionDiscriminator

DISCRIMINATORS: dict[str, tuple[type[Any], type[Any]]] = {  # name: (class, configuration)
    "multi_period": (MultiPeriodDiscriminator, MultiPeriodConfig),
    "multi_resolution": (MultiResolutionDiscriminator, MultiResolutionConfig),
    "dac": (DACDiscriminator, DACDiscriminatorConfig),
}


def build_discriminators(
    names: Iterable[str], overrides: Mapping[str, Mapping[str, Any]], seed: int
) -> nn.ModuleDict:
    """Fresh discriminators by name; `overrides` replaces fields of their configurations.

    The weights of each depend on its name and the seed, not on what is built beside it. Raises UserError for names and
    fields that do not exist.
    """
    for name in overrides:
        if name not in DISCRIMINATORS:
            raise UserError(f"no discriminator {name!r}: there are {', '.join(DISCRIMINATORS)}")
    built: dict[str, Discriminator] = {}
    for name in sorted(names):
        discriminator, config = DISCRIMINATORS[name]
        seed_globals(seed, "discriminator", name)
        try:
            built[name] = discriminator(part_from(config, dict(overrides.get(name, {}))))
        except (ValueError, TypeError) as error:
            raise UserError(f"the discriminator {name} cannot be built: {error}") from error
    return nn.ModuleDict(built)
