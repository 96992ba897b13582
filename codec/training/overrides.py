"""One change to every stage of a run, so that a variation of a recipe fits on the command line."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from codec.foundation import UserError

Config = TypeVar("Config")


def overridden(config: Config, changes: Mapping[str, Any], path: str = "stage_overrides") -> Config:
    """A dataclass with the named fields replaced, those of dataclasses within it one by one.

    Raises UserError for a field that does not exist.
    """
    known = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    replaced = {}
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"{path} names {name!r}: the fields there are {', '.join(sorted(known))}")
        present = getattr(config, name)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(present):
            value = overridden(present, value, f"{path}.{name}")
        elif isinstance(value, Mapping) and present is None:
            raise UserError(f"{path}.{name}: no stage has it yet, so give it to the stages themselves")
        replaced[name] = value
    return dataclasses.replace(config, **replaced)  # type: ignore[type-var]
