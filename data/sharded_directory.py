"""A directory of Parquet shards that any number of processes fill together, and that survives kills.

Process r of w makes shards r, r + w, ... and skips those that exist. Every file appears whole, by rename.
`metadata.json` comes last, from whichever process sees that all shards are there: where it is, the directory is whole.
"""

import json
import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from codec.foundation import (
    StopSignal,
    UserError,
    local_path,
    rank,
    remove_leftovers,
    world_size,
    write_bytes,
    write_json,
    write_text,
)
from data.corpora.utterance import words_type

METADATA = "metadata.json"
FAILURES = "failures.jsonl"
FORMAT_VERSION = 1
WORDS_TYPE = words_type(pa.float32())
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One file: the items [start, stop) of a split."""

    split: str
    number: int  # within its split
    of: int
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.parquet"


@dataclass(frozen=True)
class Contents:
    """What is written beside the shards when all of them are there.

    metadata: of `metadata.json`
    failures: a line each of `failures.jsonl`
    texts: further files by name
    """

    metadata: dict[str, Any]
    failures: Sequence[Mapping[str, str]]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FillResult:
    """How far a directory is when this process has done its part.

    whole: False when this process was stopped, or while others are still at work
    stopped: by a signal
    metadata: of the whole directory
    tried: rows of the whole directory, failures included
    """

    whole: bool
    stopped: bool
    shards_left: int
    metadata: dict[str, Any] | None = None
    tried: int = 0

    def too_many_failures(self, max_failures: float) -> bool:
        """Whether more than this share of the whole directory's rows has failed."""
        return self.metadata is not None and self.metadata["failures"] > max_failures * self.tried


class ShardedDirectory(ABC):
    """Writes the files of one such directory; subclasses say what is in them.

    identity: what must be the same for two runs to work on one directory; its keys are part of the metadata
    """

    kind: str  # for messages
    has_notes: bool  # whether shards come with notes, see `write_shard`
    temporary: tuple[str, ...] = ()  # patterns of what else a whole directory does not need

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = local_path(path)
        self.identity = json.loads(json.dumps(identity))  # as it comes back from a file: lists for tuples

    @abstractmethod
    def begun_identity(self) -> dict[str, Any] | None:
        """The identity of the run that has begun here, before the directory is whole; None if none has.

        Raises UserError when something else is here.
        """

    @abstractmethod
    def contents(self, shards: Sequence[Shard]) -> Contents:
        """What belongs beside the shards, which are all there."""

    @staticmethod
    @abstractmethod
    def shard_names(metadata: Mapping[str, Any]) -> list[str]:
        """Names of the shards of a whole directory."""

    @staticmethod
    @abstractmethod
    def count_tried(metadata: Mapping[str, Any]) -> int:
        """Rows of a whole directory, failures included."""

    def prepare(self) -> bool:
        """Make the directory and check that what is there belongs to this run; True if it is whole already.

        An identity without some of the keys is compared by those that it has.

        Raises UserError that names what differs, or what else is there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; the output must be a directory")
        self.path.mkdir(parents=True, exist_ok=True)
        metadata = self.metadata() if self.is_whole() else None
        there = self.begun_identity() if metadata is None else metadata
        if there is None:
            return False
        there = {key: there.get(key) for key in self.identity}
        if differing := _differences(there, self.identity):
            raise UserError(
                f"{self.path}: was begun with another {'; '.join(differing)}: give another --output, delete that "
                "directory, or run with what it was begun with"
            )
        if metadata is None:
            return False
        if missing_files(self.path, self.shard_names(metadata)):
            (self.path / METADATA).unlink(missing_ok=True)  # somebody deleted shards: make them again
            return False
        self._clean()  # the process that finished the directory may have died before it cleaned up
        return True

    def fill(self, shards: Sequence[Shard], make: Callable[[list[Shard], StopSignal], None]) -> FillResult:
        """Make this process's shards, and finish the directory if all shards are there then.

        `make(own, stop)` writes those of its shards that are not there, in order, until `stop.requested`.
        """
        with StopSignal() as stop:
            own = own_shards(shards)
            if not all(self.has(shard) for shard in own):
                with self.until_whole():
                    make(own, stop)
            whole = self.finish(shards)
        if whole:
            return self.result(stop.requested)
        return FillResult(False, stop.requested, sum(not self.has(shard) for shard in shards))

    @contextmanager
    def until_whole(self) -> Iterator[None]:
        """Ends the work in it where files are gone because another process has finished the directory meanwhile."""
        try:
            yield
        except FileNotFoundError:
            if not self.is_whole():
                raise

    def result(self, stopped: bool = False) -> FillResult:
        """That of a whole directory."""
        metadata = self.metadata()
        return FillResult(True, stopped, 0, metadata, self.count_tried(metadata))

    def metadata(self) -> dict[str, Any]:
        """Of a whole directory. Raises UserError when it is not one of this kind."""
        metadata = read_json(self.path / METADATA)
        if metadata.get("format_version") != FORMAT_VERSION or not self.identity.keys() <= metadata.keys():
            raise UserError(f"{self.path / METADATA}: is not of a {self.kind} of this version")
        return metadata

    def is_whole(self) -> bool:
        return (self.path / METADATA).exists()

    def has(self, shard: Shard) -> bool:
        """Whether a shard is finished, by whatever process."""
        there = (self.path / shard.file_name).exists()
        return self.is_whole() or (
            there and (not self.has_notes or self.notes_file(shard.file_name).exists())
        )

    def write_shard(self, shard: Shard, content: bytes, notes: Mapping[str, Any] | None = None) -> None:
        """Put a shard in its place. `notes` are kept in a hidden file until the directory is whole."""
        if self.has(shard):
            return  # another process has made the same
        try:
            if notes is not None:
                write_json(self.notes_file(shard.file_name), notes)
            write_bytes(self.path / shard.file_name, content)
        except FileNotFoundError:
            # Another process has finished the directory meanwhile and cleaned up.
            if not self.has(shard):
                raise

    def notes_file(self, shard_name: str) -> Path:
        return self.path / f".{shard_name.removesuffix('.parquet')}.json"

    def finish(self, shards: Sequence[Shard]) -> bool:
        """Make the directory whole if all shards are there; False if not. Any number of processes may try."""
        if not self.is_whole():
            if not all(self.has(shard) for shard in shards):
                return False
            with self.until_whole():
                contents = self.contents(shards)
                lines = (json.dumps(failure, ensure_ascii=False) + "\n" for failure in contents.failures)
                write_text(self.path / FAILURES, "".join(lines))
                for name, text in contents.texts.items():
                    write_text(self.path / name, text)
                write_json(self.path / METADATA, contents.metadata)
        self._clean()
        return True

    def _clean(self) -> None:
        for pattern in (".*-of-*.json", *self.temporary):
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        remove_leftovers(self.path)


def own_shards(shards: Sequence[T]) -> list[T]:
    """The shards r, r + w, ... of process r of w, beginning at a random one of them.

    So processes that are started by hand, each as the only one, share the work.
    """
    own = shards[rank() :: world_size()]
    start = random.SystemRandom().randrange(len(own)) if own else 0
    return [*own[start:], *own[:start]]


def cores_for_this_process() -> int:
    """This machine's cores that each process of the launch may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // world_size())


def missing_files(directory: Path, names: Sequence[str]) -> list[str]:
    """Those that are not in the directory."""
    return [name for name in names if not (directory / name).is_file()]


def read_json(file: Path) -> dict[str, Any]:
    """An object from a JSON file; anything else is an empty one. Raises UserError for what is not JSON."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from None
    return content if isinstance(content, dict) else {}


def _differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`codec.fingerprint (there 1f…, now 2e…)` for each field that differs."""
    found = []
    for key in dict.fromkeys([*there, *now]):
        was, is_now, name = there.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            found += _differences(was, is_now, f"{name}.")
        elif was != is_now:
            found.append(f"{name} (there {was}, now {is_now})")
    return found
