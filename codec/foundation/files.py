"""Files and directories that appear whole or not at all, however the process ends.

Everything is written under a temporary name that begins with a dot (`datasets.load_dataset` and shell globs
pass over those) in the directory of its final name, flushed to the disk, and renamed.
"""

import ctypes
import errno
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codec.foundation.errors import UserError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# `.NAME.<hex>.new` is being written, `.NAME.<hex>.old` is being thrown away.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.(?P<kind>new|old)")

_LONGEST_NAME = 255  # bytes, on nearly all file systems

_AT_FDCWD = -100  # linux/fcntl.h: paths are relative to the working directory
_RENAME_EXCHANGE = 2  # linux/fs.h


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path of something to write.

    Raises UserError for an address such as s3://bucket/name, of which a path would make a folder called `s3:`.
    """
    if _ADDRESS.match(os.fspath(path)):
        raise UserError(f"{os.fspath(path)}: an address: give a path on this machine")
    return Path(path)


def file_identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """What is the same for all names of one file; None where none is."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises UserError for a device or a pipe, which a file that is renamed to this path would take the place of."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{os.fspath(path)}: is a device or a pipe: give a file")


def check_replaceable(directory: Path, is_known: bool, otherwise: str) -> None:
    """Raises UserError where something is there that is not known to be of the kind that replaces it.

    otherwise: what it is then, for the message: "is not a vocoder". An empty directory may always be replaced.
    """
    if not is_known and directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and {otherwise}: give another output directory")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically: readers see the old content or all of the new one, never a part.

    The parent directory must exist.
    """
    path = Path(path)
    check_regular(path)
    temporary = _temporary_sibling(path, "new")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a UTF-8 text file atomically, line endings as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON file atomically, indented, with a newline at the end.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` when the block ends, replacing what was there.

    Nothing appears when the block raises. On Linux the replacement is one atomic exchange; where the file
    system cannot do that, `path` is missing for the moment between two renames, and `remove_leftovers` puts
    the former directory back if the process died there.
    """
    path = local_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path, "new")
    temporary.mkdir()
    try:
        yield temporary
        _sync_tree(temporary)
        _move_onto(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if (full := os.strerror(errno.ENOSPC)) in str(error) and not getattr(error, "filename", None):
            raise OSError(errno.ENOSPC, full, str(path)) from error  # libraries do not say where
        raise
    _sync(path.parent)


def remove_directory(path: str | os.PathLike[str]) -> None:
    """Delete a directory so that no reader ever finds half of it under its name."""
    path = Path(path)
    doomed = _temporary_sibling(path, "old")
    # Marked first: a directory without this mark that bears an `.old` name is restored, not removed.
    (path / _DOOMED).touch()
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(directory: str | os.PathLike[str], older_than_seconds: float = 0.0) -> None:
    """Remove what killed processes left half written in `directory` (not below it).

    Call it where no other process is writing, or with an age that no honest write reaches.
    """
    directory = Path(directory)
    if not directory.is_dir():
        return
    for entry in list(directory.iterdir()):
        match = _LEFTOVER.fullmatch(entry.name)
        if match is None:
            continue
        try:
            if time.time() - entry.lstat().st_mtime < older_than_seconds:
                continue
            target = directory / match["name"]
            if match["kind"] == "old" and not (entry / _DOOMED).exists() and not target.exists():
                os.rename(entry, target)  # killed between the two renames of a replacement
            elif entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        except FileNotFoundError:
            continue  # another process cleaned up at the same time


_DOOMED = ".removed"


def _temporary_sibling(path: Path, kind: str) -> Path:
    name = path.name
    while len(os.fsencode(name)) > _LONGEST_NAME - 40:  # the dots, 32 hex digits, the kind
        name = name[:-1]
    return path.with_name(f".{name}.{uuid.uuid4().hex}.{kind}")


def _move_onto(source: Path, target: Path) -> None:
    """Rename a directory to `target`; what was there is deleted."""
    if not target.exists():
        os.rename(source, target)
        return
    if _exchange(source, target):
        shutil.rmtree(source)  # `source` now names the former directory
        return
    former = _temporary_sibling(target, "old")
    os.rename(target, former)
    try:
        os.rename(source, target)
    except BaseException:
        os.rename(former, target)
        raise
    shutil.rmtree(former)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _sync_tree(directory: Path) -> None:
    """Flush a directory and all below it; whoever may read the directory may read its files.

    safetensors makes files that their owner alone can read, wherever they lie.
    """
    usual = directory.stat().st_mode & 0o666
    for folder, _, names in os.walk(directory):
        for name in names:
            file = Path(folder, name)
            file.chmod(file.stat().st_mode | usual)
            _sync(file)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(descriptor)
