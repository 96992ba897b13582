"""Where numbers come from (command, date, machine), and what things and files are called in results."""

import platform
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from codec.foundation import UserError

_PACKAGES = ("codec-slm", "torch", "transformers")


def provenance(device: str, packages: Sequence[str] = ()) -> dict[str, Any]:
    """The facts that a file of results begins with, as JSON.

    `command`: as typed; `date`: of today, UTC, as 2026-01-31; `device`: the GPU, or the processor, by name;
    `threads`: of torch on the CPU; `python` and `versions`: of what computed, and of those `packages` that are
    installed.
    """
    return {
        "command": " ".join(["codec-slm", *map(shlex.quote, sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {
            name: found for name in (*_PACKAGES, *packages) if (found := installed_version(name)) is not None
        },
    }


def device_name(device: str) -> str:
    """What a torch device is called by who made it: `cpu` is the processor, where Linux tells."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return device
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    """None for what is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def file_name(text: str) -> str:
    """A name that any file system takes; ids of sentences and recordings are the user's."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "_"


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """What files and directories are called in tables: their own names, with parents before them where two have one.

    Of a file the ending is left out where it tells nothing. Raises UserError for what is given twice.
    """
    places = [path.resolve() for path in paths]
    if twice := [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"{twice[0]} is given twice")
    parts = [[*place.parts[:-1], place.stem if place.is_file() else place.name] for place in places]
    kept = [1] * len(parts)  # how many of the parts, from the last

    def names() -> list[str]:
        return ["/".join(own[-count:]) for own, count in zip(parts, kept, strict=True)]

    while True:
        counts = Counter(names())
        short = [
            number
            for number, name in enumerate(names())
            if counts[name] > 1 and kept[number] < len(parts[number])
        ]
        if not short:
            break
        for number in short:
            kept[number] += 1
    if max(counts.values(), default=1) > 1:  # they differ in their endings alone
        return [str(path) for path in paths]
    return names()
