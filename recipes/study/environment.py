"""What decides a result beside data and settings, and may change between two starts: it belongs to a cell's key."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from codec.metrics import POCKETSPHINX, WAVEFORM_METRICS, MissingDependency, require, usable_metrics
from recipes.evaluation.scoring import NO_RECOGNIZER
from recipes.study.config import StudyConfig

if TYPE_CHECKING:
    from codec import Codec

# of a codec's config: where it came from and what wrote it, not what it does
_NO_MATTER = frozenset({"_name_or_path", "transformers_version", "architectures"})


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
        needed = ("jiwer", POCKETSPHINX if config.asr == POCKETSPHINX else "transformers")
        packages |= set(needed)
        heard_by = config.asr if config.asr == POCKETSPHINX else location_hash(config.asr)
        hears = heard_by if all(map(_is_usable, needed)) else None
    judges = [path for path in (config.speaker_model, config.utmos) if path is not None]
    if judges:
        packages.add("transformers")
    return {
        "metrics": [metric.name for metric in usable_metrics(asked).metrics],
        "asr": hears,
        "judges": [location_hash(path) for path in judges],
        "versions": versions(*sorted(packages)),
    }


def versions(*packages: str) -> dict[str, str | None]:
    """By name; None of what is not installed."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_usable(package: str) -> bool:
    try:
        require(package, "the error rates")
    except MissingDependency:
        return False
    return True


def codec_hash(codec: "Codec") -> str:
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
