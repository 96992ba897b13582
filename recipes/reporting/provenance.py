"""Where numbers come from: what was typed, when, and on which machine. Every file of results says so."""

import platform
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("codec-slm", "torch", "transformers")


def provenance(device: str, packages: Sequence[str] = ()) -> dict[str, Any]:
    """The facts that a file of results begins with, as JSON.

    `command`: as typed; `date`: of today, UTC, as 2026-01-31; `device`: the GPU, or the processor, by name;
    `threads`: of torch on the CPU; `python` and `versions`: of what computed, and of those `packages` that are
    installed.
    """
    import torch

    return {
        "command": " ".join(["codec-slm", *map(shlex.quote, sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {
            name: found for name in (*_PACKAGES, *packages) if (found := _version(name)) is not None
        },
    }


def device_name(device: str) -> str:
    """What a torch device is called by who made it: `cpu` is the processor, where Linux tells."""
    import torch

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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
