"""Which rows of which source an epoch is made of, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codec.runs import UserError, generator


@dataclass(frozen=True)
class EpochRows:
    """The rows of an epoch in the order of its documents; both arrays are (documents,)."""

    rows: np.ndarray  # int64, numbered over all sources
    repeats: (
        np.ndarray
    )  # int16, 0 for a row that comes for the first time in this epoch, 1 for the second time, …


def rows_per_epoch(sizes: Sequence[int], tokens: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """How many rows of each source an epoch has.

    Without weights every row comes once. With them, an epoch has as many tokens as all sources together,
    divided as the weights say.

    Args:
        sizes: rows of each source.
        tokens: text and speech tokens of each source.
        weights: one for each source, or None for each.
    """
    if all(weight is None for weight in weights):
        return list(sizes)
    if any(weight is None or weight < 0 for weight in weights) or not sum(
        weight or 0.0 for weight in weights
    ):
        raise UserError(
            f"weights of datasets: give every dataset a weight (0 or more) or none, not {list(weights)}"
        )
    shares = [(weight or 0.0) / sum(weight or 0.0 for weight in weights) for weight in weights]
    counts = []
    for share, size, source_tokens in zip(shares, sizes, tokens, strict=True):
        per_row = source_tokens / size if source_tokens else 1.0
        counts.append(max(1, round(sum(tokens) * share / per_row)) if share and size else 0)
    return counts


def rows_of_epoch(seed: int, epoch: int, sizes: Sequence[int], counts: Sequence[int]) -> EpochRows:
    """The rows of an epoch, shuffled.

    A source is gone through again and again, each time in a new order; an epoch takes up where the one
    before it stopped, so all rows of a source come equally often, whatever its count.
    """
    rows: list[np.ndarray] = []
    repeats: list[np.ndarray] = []
    start = 0
    for source, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        begin, end = epoch * count, (epoch + 1) * count
        passes = range(begin // size, (end - 1) // size + 1) if size and count else range(0)
        for number in passes:
            order = generator(seed, "order of rows", source, number).permutation(size)
            part = order[max(0, begin - number * size) : end - number * size]
            rows.append(start + part)
            repeats.append(np.full(len(part), number - passes[0], dtype=np.int16))
        start += size
    if not rows:
        return EpochRows(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int16))
    shuffled = generator(seed, "order of documents", epoch).permutation(sum(map(len, rows)))
    return EpochRows(np.concatenate(rows)[shuffled], np.concatenate(repeats)[shuffled])
