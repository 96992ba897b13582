"""Cells: finished pieces of work, found again by the content of what they were made from.

STUDY/cells/STAGE-NAME-KEY/result.json     written last: its presence says that the cell is finished
STUDY/cells/STAGE-NAME-KEY/...             whatever else the work leaves

A cell's key covers data and settings, and whatever else decides a result and may change between two starts: the kind of
device, versions of packages, the weights of a codec.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from codec import Codec
from codec.foundation import write_json
from codec.metrics import (
    FASTER_WHISPER,
    POCKETSPHINX,
    RESEMBLYZER,
    WAVEFORM_METRICS,
    MissingDependency,
    require,
    usable_metrics,
)
from recipes.evaluation.scoring import NO_RECOGNIZER
from recipes.reporting.provenance import file_name, installed_version
from recipes.reporting.tables import without_nan
from recipes.study.config import StudyConfig

_RESULT = "result.json"
_KEY_DIGITS = 12
# of a codec's config: where it came from and what wrote it, not what it does
_NO_MATTER = frozenset({"_name_or_path", "transformers_version", "architectures"})


class Stopped(Exception):
    """Work was asked to stop before it was done; it goes on when it is started again."""


@dataclass(frozen=True)
class Stage:
    """A piece of work.

    `inputs` is all that decides the outcome, as JSON has it: settings and content hashes, no places. `work` writes
    into the directory it is given and returns what is to be known of it, again as JSON; NaN becomes null.
    """

    name: str
    of: str  # the tokenizer, for people
    inputs: Mapping[str, Any]
    work: Callable[[Path], Mapping[str, Any]]
    resumes: bool = False  # whether it can go on in the directory that a killed process left
    version: int = 1  # of the work: another one is another cell

    @property
    def key(self) -> str:
        """Hexadecimal digits that name the outcome."""
        content = json.dumps([self.name, self.version, self.inputs], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:_KEY_DIGITS]


@dataclass(frozen=True)
class Cell:
    """A finished piece of work."""

    path: Path
    result: Mapping[str, Any]
    seconds: float  # that it took, in the process that finished it


class Cells:
    """The cells of a study."""

    def __init__(self, root: Path):
        self.root = root

    def find(self, stage: Stage) -> Cell | None:
        """The finished cell, if it is there."""
        path = self._path(stage)
        try:
            content = json.loads((path / _RESULT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Cell(path, content["result"], content["seconds"])

    def make(self, stage: Stage) -> Cell:
        """The cell, worked out unless it is there."""
        if (cell := self.find(stage)) is not None:
            return cell
        path = self._path(stage)
        if path.exists() and not stage.resumes:
            shutil.rmtree(path)  # half of it, by a process that was killed
        path.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        result = without_nan(stage.work(path))
        seconds = round(time.monotonic() - started, 3)
        write_json(path / _RESULT, {"inputs": stage.inputs, "seconds": seconds, "result": result})
        made = self.find(stage)  # as it will be read: the same whether it was just made or was there
        assert made is not None
        return made

    def _path(self, stage: Stage) -> Path:
        return self.root / f"{stage.name}-{file_name(stage.of)}-{stage.key}"


# ---- what decides a result beside data and settings


def computed_by(config: StudyConfig, device: str, *packages: str) -> dict[str, Any]:
    """What decides how numbers are rounded: the kind of device, threads, versions of torch and of `packages`.

    Not which device of a kind: a study goes on on another machine like the one where it began.
    """
    kind = torch.device(device).type
    return {"device": kind, "threads": config.threads, "versions": versions("torch", *packages)}


def measured_by(config: StudyConfig, metrics: Sequence[str]) -> dict[str, Any]:
    """Which of the metrics can be measured here, and what measures and hears: packages, models by their content."""
    asked = [metric for metric in WAVEFORM_METRICS if metric.name in metrics]
    packages = {package for metric in asked for package in metric.packages}
    hears = None
    if config.asr != NO_RECOGNIZER:
        by_whisper = config.asr.startswith(FASTER_WHISPER)
        package = "faster_whisper" if by_whisper else "transformers"
        needed = ("jiwer", POCKETSPHINX if config.asr == POCKETSPHINX else package)
        packages |= set(needed)
        model = config.asr.removeprefix(FASTER_WHISPER)
        heard_by = config.asr if config.asr == POCKETSPHINX else location_hash(model)
        hears = heard_by if all(map(_is_usable, needed)) else None
    judges = [path for path in (config.speaker_model, config.utmos) if path is not None]
    if judges:
        packages.add("transformers")
    if config.speaker_model == RESEMBLYZER:
        packages.add(RESEMBLYZER)
    return {
        "metrics": [metric.name for metric in usable_metrics(asked).metrics],
        "asr": hears,
        "judges": [location_hash(path) for path in judges],
        "versions": versions(*sorted(packages)),
    }


def versions(*packages: str) -> dict[str, str | None]:
    """By name; None of what is not installed."""
    return {package: installed_version(package) for package in packages}


def _is_usable(package: str) -> bool:
    try:
        require(package, "the error rates")
    except MissingDependency:
        return False
    return True


def codec_hash(codec: Codec) -> str:
    """16 hex digits over a codec's weights and configuration: unlike its fingerprint, over its decoder's too."""
    digest = hashlib.blake2b(digest_size=8)
    config: Any = codec.config
    inner = getattr(codec, "model", None)  # of an adapter, whose own config has a few facts only
    told = [
        found.to_dict() if hasattr(found, "to_dict") else asdict(found)
        for found in (config, getattr(inner, "config", None))
        if found is not None
    ]
    digest.update(json.dumps(_deciding(told), sort_keys=True, default=str).encode())
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _deciding(value: Any) -> Any:
    """A configuration without what makes no difference, at any depth."""
    if isinstance(value, Mapping):
        return {key: _deciding(entry) for key, entry in value.items() if key not in _NO_MATTER}
    return [_deciding(entry) for entry in value] if isinstance(value, list | tuple) else value


def location_hash(location: str) -> str:
    """A file's or directory's content as 16 hex digits, wherever it lies; a name (of the hub, or built in) as it is."""
    path = Path(location)
    if not path.exists():
        return location
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read once as long as it does not change."""
    stat = path.stat()
    return _file_hash(os.path.realpath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1_024)
def _file_hash(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
