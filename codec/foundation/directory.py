"""The directory of a training run: its config, its log, its checkpoints, its result.

RUN/config.yaml                    everything resolved
RUN/log.jsonl                      one line a logging step
RUN/tensorboard/                   the same numbers, and audio and pictures
RUN/checkpoints/step-00001000/     whole or absent
RUN/final/                         the result
RUN/.lock                          host and process that work on it now
"""

import dataclasses
import errno
import fcntl
import json
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from codec.foundation.errors import UserError
from codec.foundation.files import (
    local_path,
    remove_directory,
    remove_leftovers,
    whole_directory,
    write_bytes,
    write_json,
    write_text,
)
from codec.foundation.process import rank

_CHECKPOINT = re.compile(r"step-(\d{8,})")
_SCORE = "score.json"
_LOCK = ".lock"


class RunDirectory:
    """Reads and writes one run directory; with several processes only the first one writes.

    keep_last: checkpoints that are kept, besides the best one by the score given to `save` (lower is better).
    tensorboard: the class of its event writers, `torch.utils.tensorboard.SummaryWriter`; None writes no events.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keep_last: int = 2,
        tensorboard: Callable[..., Any] | None = None,
    ) -> None:
        if keep_last < 1:
            raise UserError(f"keep_last is {keep_last}: a run keeps at least one checkpoint to go on from")
        self.path = local_path(path)
        self.keep_last = keep_last
        self._writes = rank() == 0
        self._log_descriptor: int | None = None
        self._event_writer = tensorboard
        self._tensorboard: Any = None
        self._resumed_step: int | None = None
        self._lock: int | None = None

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log_path(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """Where the result goes: write it with `whole_directory`, then its existence means "finished"."""
        return self.path / "final"

    # ---- config

    def changed_fields(self, config: Any, may_change: Collection[str] = ()) -> dict[str, str]:
        """The fields of a config that differ from those of the run that is there: a sentence each, by dotted name.

        config: a mapping or a dataclass. may_change: names of fields that may differ (`"output"`,
        `"optimizer.learning_rate"`, `"datasets.*.path"`; a name covers what is below it).

        Raises UserError naming the other fields that differ, where a checkpoint or a result depends on them.
        """
        plain = plain_config(config)
        of_transformers = self.path.glob("checkpoint-*")
        has_begun = self.latest() or self.final.exists() or any(of_transformers)
        if not (has_begun and self.config_path.exists()):
            return {}  # a run without a checkpoint begins again, whatever it was
        there = yaml.safe_load(self.config_path.read_text(encoding="utf-8")) or {}
        changed = dict(_differences(there, plain))
        refused = [
            text for name, text in changed.items() if not any(_covers(free, name) for free in may_change)
        ]
        if refused:
            raise UserError(
                f"{self.path} holds a run with another config ({'; '.join(refused)}): "
                "give this run another output directory, or set these fields back to go on with that run"
            )
        return changed

    def write_config(self, config: Any, may_change: Collection[str] = ()) -> dict[str, str]:
        """Write `config.yaml`; arguments, result and errors are those of `changed_fields`."""
        plain, changed = plain_config(config), self.changed_fields(config, may_change)
        if self._writes:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.config_path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        return changed

    def reopen(self, config: Any, may_change: Collection[str]) -> tuple[Path | None, dict[str, str]]:
        """The checkpoint to go on from, None for a fresh start; and `changed_fields`, whose errors it raises too.

        It is the latest, unless `skip_data` ({step: steps whose data are left out}) of the config has a new step: then
        the last one at or before that. Raises UserError where there is none. Nothing is written.
        """
        changed = self.changed_fields(config, may_change)
        again = min(
            (int(name.split(".")[1]) for name in changed if name.startswith("skip_data.")), default=None
        )
        checkpoint = self.latest(again)
        if again is not None and checkpoint is None:
            raise UserError(
                f"skip_data: {self.path} has no checkpoint at step {again} or before it to go on from"
            )
        return checkpoint, changed

    def go_on(
        self, label: str, step: int, config: Any, may_change: Collection[str], changed: Mapping[str, str]
    ) -> None:
        """Begin to write after `step` updates: `resume`, `write_config`, and what has changed, in the log and in words.

        label: of the command, before the words. changed: of `reopen`.
        """
        removed = self.resume(step)
        self.write_config(config, may_change)
        told = [f"changed: {text}" for text in changed.values()]
        if removed:
            names = ", ".join(path.name for path in removed)
            told.append(f"going back to step {step}; later checkpoints are removed: {names}")
        if told and self._writes:
            self.log(step, {"changed": "; ".join(told)})
            print(*(f"{label}: {line}" for line in told), sep="\n", file=sys.stderr)

    # ---- lock

    def lock(self) -> None:
        """Keep other processes out until `close`, or until this one ends, however it ends.

        It is a POSIX record lock, which shared file systems hand on to other machines if they know locks at all; where
        they do not, nothing is locked. Raises UserError that names the process which has the run.
        """
        if not self._writes or self._lock is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / _LOCK
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    owner = os.read(descriptor, 1000).decode(errors="replace") or "another process"
                    os.close(descriptor)
                    raise UserError(
                        f"{self.path} is being trained by {owner}: wait for it, stop it, or give this run another "
                        "output directory"
                    ) from None
                break  # a file system without locks
            os.close(descriptor)  # of a process that has just let go and removed the file
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._lock = descriptor

    def _unlock(self) -> None:
        if self._lock is None:
            return
        (self.path / _LOCK).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None
        if not any(self.path.iterdir()):
            self.path.rmdir()  # of a command that failed before it wrote anything

    # ---- log

    def resume(self, step: int) -> list[Path]:
        """Say where the run goes on: after `step` updates, 0 for a fresh start. Call it once, before logging.

        Log lines past that step are dropped, they will be written again; so is what killed processes left half
        written. Checkpoints past it are removed, and returned: there are some where a run goes back.
        """
        self._resumed_step = step
        if not self._writes:
            return []
        for directory in (self.path, self.checkpoints):
            remove_leftovers(directory)
        later = [path for path in self._all_checkpoints() if checkpoint_step(path) > step]
        for path in later:
            remove_directory(path)
        if self.log_path.exists():
            lines = _whole_lines(self.log_path.read_bytes())
            kept = [line for line in lines if _step_of_line(line) <= step]
            write_bytes(self.log_path, b"".join(kept))
        return later

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to `log.jsonl`, and the numbers in it to TensorBoard.

        Tensors of one element and numpy scalars are taken as numbers. NaN and infinities are written as null,
        for JSON has no word for them.
        """
        if not self._writes:
            return
        numbers = {name: _number(value) for name, value in values.items()}
        line = {"step": step} | {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in numbers.items()
        }
        if self._log_descriptor is None:
            self._log_descriptor = self._open_log()
        # One write call: a reader, or a kill, finds whole lines but for a crash of the machine.
        os.write(self._log_descriptor, (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))
        if self.tensorboard is not None:
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self.tensorboard.add_scalar(name, value, step)

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of `log.jsonl`; a half line at the end is skipped."""
        if not self.log_path.exists():
            return []
        return [json.loads(line) for line in _whole_lines(self.log_path.read_bytes())]

    @property
    def tensorboard(self) -> Any:
        """The event writer, for audio and pictures; None on other processes than the first, and without one."""
        if self._tensorboard is None and self._writes and self._event_writer is not None:
            # Events past the resumed step are hidden, as their log lines are dropped.
            purge_step = None if self._resumed_step is None else self._resumed_step + 1
            self._tensorboard = self._event_writer(str(self.path / "tensorboard"), purge_step=purge_step)
        return self._tensorboard

    def close(self) -> None:
        """Flush and close the log and TensorBoard, logging again opens them again; give up the lock."""
        if self._log_descriptor is not None:
            os.close(self._log_descriptor)
            self._log_descriptor = None
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        self._unlock()

    def _open_log(self) -> int:
        self.path.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists():
            content = self.log_path.read_bytes()
            whole = b"".join(_whole_lines(content))
            if whole != content:
                write_bytes(self.log_path, whole)
        return os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    # ---- checkpoints

    def save(self, step: int, save_fn: Callable[[Path], None], score: float | None = None) -> Path:
        """Write `checkpoints/step-…/` by calling `save_fn(directory)`, then delete checkpoints no longer
        kept.

        `score` (a validation loss, lower is better) makes the checkpoint a candidate for the best one. On
        other processes than the first nothing is called or written: gather sharded tensors before.
        """
        path = self.checkpoints / f"step-{step:08d}"
        if not self._writes:
            return path
        with whole_directory(path) as directory:
            save_fn(directory)
            if score is not None and math.isfinite(score):
                write_json(directory / _SCORE, {"score": float(score)})
        kept = {*self._all_checkpoints()[-self.keep_last :], self.best(), path}
        for checkpoint in self._all_checkpoints():
            if checkpoint not in kept:
                remove_directory(checkpoint)
        return path

    def latest(self, most: int | None = None) -> Path | None:
        """The checkpoint with the most steps, at most `most`; whole by construction, None when there is none."""
        found = [path for path in self._all_checkpoints() if most is None or checkpoint_step(path) <= most]
        return max(found, key=checkpoint_step, default=None)

    def best(self) -> Path | None:
        """The checkpoint with the lowest score, the earliest of equals; None when none was scored."""
        scored = [path for path in self._all_checkpoints() if (path / _SCORE).is_file()]
        return min(
            scored,
            key=lambda path: (
                json.loads((path / _SCORE).read_text(encoding="utf-8"))["score"],
                checkpoint_step(path),
            ),
            default=None,
        )

    def _all_checkpoints(self) -> list[Path]:
        if not self.checkpoints.is_dir():
            return []
        found = [path for path in self.checkpoints.iterdir() if _CHECKPOINT.fullmatch(path.name)]
        return sorted(found, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """Number of updates behind a checkpoint, from its name."""
    match = _CHECKPOINT.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path} is not a checkpoint of a run: expected a directory named like step-00001000")
    return int(match[1])


def plain_config(config: Any) -> dict[str, Any]:
    """A config (mapping or dataclass) as YAML reads it: dicts, lists, strings, numbers, booleans, None."""
    plain = _plain(config)
    if not isinstance(plain, dict):
        raise TypeError(f"a config is a mapping or a dataclass, not a {type(config).__name__}")
    return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a config cannot hold a {type(value).__name__}")


def _differences(there: Any, here: Any, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, "name: there -> here") of every leaf that differs."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        found = []
        for name in dict.fromkeys([*there, *here]):
            if name not in there and not here[name]:
                continue  # what an older version did not know yet is off
            before = there.get(name, {} if isinstance(here.get(name), Mapping) else None)
            found += _differences(before, here.get(name), f"{prefix}.{name}" if prefix else name)
        return found
    if _are_sections(there) and _are_sections(here) and len(there) == len(here):
        return [
            difference
            for number, (old, new) in enumerate(zip(there, here, strict=True))
            for difference in _differences(old, new, f"{prefix}.{number}")
        ]
    return [] if there == here else [(prefix, f"{prefix} was {_shown(there)}, is now {_shown(here)}")]


def _are_sections(value: Any) -> bool:
    """Whether a value is a list of mappings, such as the stages of a run."""
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _covers(free: str, name: str) -> bool:
    wanted, parts = free.split("."), name.split(".")
    return len(wanted) <= len(parts) and all(w in ("*", part) for w, part in zip(wanted, parts, strict=False))


def _whole_lines(content: bytes) -> list[bytes]:
    """The lines that end, without the half line of a killed process."""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def _step_of_line(line: bytes) -> int:
    return int(json.loads(line)["step"])


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
