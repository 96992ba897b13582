"""Arrays that are computed once for all processes of a machine, and mapped into memory by each of them."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from codec.foundation import UserError, local_path, remove_directory, whole_directory, write_json

_FACTS = "facts.json"


@dataclass(frozen=True)
class CachedArrays:
    """What a directory of the cache holds. The arrays are read from the disk as they are used."""

    path: Path
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def cache_root() -> Path:
    """`$CODEC_SLM_CACHE`, else `codec-slm` in the user's cache directory."""
    if named := os.environ.get("CODEC_SLM_CACHE"):
        return local_path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codec-slm"


def load_or_make(
    path: Path, make: Callable[[Path], Mapping[str, Any]], kept: int | None = None
) -> CachedArrays:
    """The arrays in a directory of the cache. The first process that asks for them makes them, the others wait.

    Args:
        path: the directory; its name is a hash of all that the content depends on.
        make: writes `.npy` files into an empty directory and returns facts about them that JSON can hold.
        kept: directories to keep in the parent directory; the least recently used ones are removed.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        return _load(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # not made yet, or removed by another process while it was being opened
    with _locked(path):
        if not path.is_dir():  # another process made it while this one waited
            with whole_directory(path) as directory:
                write_json(directory / _FACTS, dict(make(directory)))
        loaded = _load(path)
    if kept is not None:
        _remove_unused(path, kept)
    return loaded


def _load(path: Path) -> CachedArrays:
    """Map what is there; raises FileNotFoundError where something is missing."""
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
    facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
    with suppress(OSError):  # the cache may be read-only
        os.utime(path)
    return CachedArrays(path, arrays, facts)


def _remove_unused(path: Path, kept: int) -> None:
    """Keep the `kept` most recently used directories beside `path`, itself included, and remove the others.

    A process that has mapped the files of a removed one goes on reading them. A directory stays while another process
    makes or opens it.
    """
    by_age = []
    for sibling in path.parent.glob("[!.]*"):
        with suppress(FileNotFoundError):  # removed by another process
            by_age.append((sibling.stat().st_mtime, sibling))
    for _, unused in sorted(by_age, reverse=True)[kept:]:
        with suppress(Timeout, FileNotFoundError), _lock_of(unused).acquire(blocking=False):
            remove_directory(unused)


def write_arrays(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as `NAME.npy`, for `load_or_make`."""
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=False)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock_of(path)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written ({error.strerror}): set CODEC_SLM_CACHE to a directory that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _lock_of(path: Path) -> FileLock:
    """The lock under which a directory is made and removed.

    A lock file is never removed: a process may be waiting for it. Directories share 256 of them, so few collect.
    """
    return FileLock(path.parent / f".{path.name[:2]}.lock")
