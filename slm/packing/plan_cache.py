"""Packing plans on disk: made by one process of a machine, read by all of them."""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from codec.foundation import remove_directory
from slm.packing.array_cache import cache_root, load_or_make, write_arrays
from slm.packing.best_fit import PackingPlan, pack

_VERSION = 1  # of the algorithm: another one makes other plans of the same lengths
_SMALL = 200_000  # documents: fewer are packed faster than a plan is written and read
_KEPT = 8  # plans


def plan_blocks(lengths: np.ndarray, block_length: int) -> PackingPlan:
    """`best_fit.pack`, but of many documents once for all processes of a machine, and mapped into memory."""
    if len(lengths) < _SMALL:
        return pack(lengths, block_length)
    key = blake2b(np.asarray(lengths, dtype=np.int32).tobytes(), digest_size=16, person=b"packing plan")
    key.update(f"{_VERSION} {block_length}".encode())
    cached = load_or_make(
        cache_root() / "plans" / key.hexdigest(),
        lambda directory: _write(directory, pack(lengths, block_length)),
    )
    arrays, facts = cached.arrays, cached.facts
    return PackingPlan(
        arrays["documents"],
        arrays["starts"],
        arrays["block_starts"],
        facts["block_length"],
        facts["tokens"],
        facts["cut_documents"],
    )


def _write(directory: Path, plan: PackingPlan) -> dict[str, Any]:
    names = ("documents", "starts", "block_starts")
    write_arrays(directory, {name: getattr(plan, name) for name in names})
    _remove_old(directory.parent)
    return {"block_length": plan.block_length, "tokens": plan.tokens, "cut_documents": plan.cut_documents}


def _remove_old(plans: Path) -> None:
    """An epoch's plan is of no use after it. Who still reads a removed one goes on reading: its files are mapped."""
    by_age = []
    for plan in plans.glob("[!.]*"):
        try:
            by_age.append((plan.stat().st_mtime, plan))
        except FileNotFoundError:
            continue  # removed by another process
    for _, plan in sorted(by_age, reverse=True)[_KEPT - 1 :]:
        remove_directory(plan)
        (plans / f".{plan.name}.lock").unlink(missing_ok=True)
