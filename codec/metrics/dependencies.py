"""Packages that only some metrics need: what is missing is named, with the cure, never passed over."""

import importlib
from types import ModuleType

from codec.foundation.errors import UserError


class MissingDependency(UserError):
    """A package that a metric stands on is not installed; the message names both and says how to get it."""


def require(package: str, purpose: str) -> ModuleType:
    """Import `package` for `purpose`; raises MissingDependency where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(
            f"{purpose} needs the package {package}: pip install 'codec-slm[eval]'"
        ) from error
