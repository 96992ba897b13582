"""Arrays that are computed once for all processes of a machine, and mapped into memory by each of them."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codec.foundation import UserError, whole_directory, write_json

_FACTS = "facts.json"


@dataclass(frozen=True)
class CachedArrays:
    """What a directory of the cache holds; the arrays are read from the disk as they are used."""

    path: Path
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def cache_root() -> Path:
    """`$CODEC_SLM_CACHE`, else `codec-slm` in the user's cache directory."""
    if named := os.environ.get("CODEC_SLM_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codec-slm"


def load_or_make(path: Path, make: Callable[[Path], Mapping[str, Any]]) -> CachedArrays:
    """The arrays in a directory of the cache; the first process that asks for them makes them, the others wait.

    Args:
        path: the directory; its name has to say all that the content depends on.
        make: writes `.npy` files into an empty directory and returns facts about them that JSON can hold.

    Raises UserError when nothing can be written there.
    """
    if not path.is_dir():
        with _locked(path):
            if not path.is_dir():  # another process made it while this one waited
                with whole_directory(path) as directory:
                    write_json(directory / _FACTS, dict(make(directory)))
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
    return CachedArrays(path, arrays, json.loads((path / _FACTS).read_text(encoding="utf-8")))


def write_arrays(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as `NAME.npy`, for `load_or_make`."""
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=False)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / f".{path.name}.lock")
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written ({error.strerror}): set CODEC_SLM_CACHE to a directory that can"
        ) from error
    try:
        yield
    finally:
        lock.release()
