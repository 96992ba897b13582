"""Which rows of which source an epoch is made of, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf

import numpy as np

from codec.foundation import UserError, generator


@dataclass(frozen=True)
class EpochRows:
    """The rows of an epoch in the order of its documents; both arrays are (documents,)."""

    rows: np.ndarray  # int64, numbered over all sources
    repeats: np.ndarray  # int16, 0 for a row that comes for the first time in this epoch, 1 for the second, …


def rows_per_epoch(
    sizes: Sequence[int],
    tokens: Sequence[float],
    weights: Sequence[float | None],
    limits: Sequence[float | None] | None = None,
) -> list[float]:
    """How many rows of each source an epoch has.

    Without weights every row comes once. With weights an epoch has as many tokens as all sources together, divided by
    weight. A source at its limit gives no more than that; the others fill the rest.

    Args:
        sizes: rows of each source.
        tokens: of the documents of each source if every row comes once.
        weights: one for each source, or None for each.
        limits: the largest share of the tokens that each source may have, or None.

    Returns:
        (sources,) rows; not whole numbers, see `rows_of_epoch`.
    """
    unweighted = all(weight is None for weight in weights)
    most = [inf if limit is None else limit for limit in limits or [None] * len(sizes)]
    if unweighted and not sum(tokens):
        return list(sizes)
    if not unweighted and (
        any(weight is None or weight < 0 for weight in weights)
        or not sum(weight or 0.0 for weight in weights)
    ):
        raise UserError(
            f"weights of datasets: give every dataset a weight (0 or more) or none, not {list(weights)}"
        )
    given = tokens if unweighted else [weight or 0.0 for weight in weights]
    wanted = [weight / sum(given) for weight in given]
    limited = any(share > limit for share, limit in zip(wanted, most, strict=True))
    if unweighted and not limited:
        return list(sizes)
    shares = limit_shares(wanted, most) if limited else wanted
    counts: list[float] = []
    for share, size, source_tokens in zip(shares, sizes, tokens, strict=True):
        per_row = source_tokens / size if source_tokens else 1.0
        rows = sum(tokens) * share / per_row if share and size else 0.0
        counts.append(round(rows, 9))  # no row less for the last digit
    return counts


def limit_shares(shares: Sequence[float], limits: Sequence[float]) -> list[float]:
    """Shares of a mixture, none above its limit. The others keep their proportions and fill up.

    This repeats the data as little as possible, as UniMax does (Chung et al., arXiv 2304.09151).

    Raises:
        UserError: all limits together do not reach 1.
    """
    reachable = sum(limit for share, limit in zip(shares, limits, strict=True) if share)
    if reachable < 1 - 1e-9:
        raise UserError(
            f"max_epochs of the datasets leave only {reachable:.1%} of the tokens that the run trains on: "
            "train for fewer steps, allow more epochs, or add data"
        )
    result, left = [0.0] * len(shares), 1.0
    growing = [number for number, share in enumerate(shares) if share]
    while growing:
        scale = left / sum(shares[number] for number in growing)
        full = [number for number in growing if shares[number] * scale > limits[number]]
        for number in full or growing:
            result[number] = limits[number] if full else shares[number] * scale
        left -= sum(result[number] for number in full)
        growing = [number for number in growing if full and number not in full]
    return result


def rows_of_epoch(seed: int, epoch: int, sizes: Sequence[int], counts: Sequence[float]) -> EpochRows:
    """The rows of an epoch, shuffled.

    Each pass through a source has a new order, and an epoch goes on where the one before it stopped. So all rows of a
    source come equally often, whatever its count. Where a count is not a whole number, epochs differ by one row.
    """
    rows: list[np.ndarray] = []
    repeats: list[np.ndarray] = []
    start = 0
    for source, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        begin, end = floor(epoch * count), floor((epoch + 1) * count)
        passes = range(begin // size, (end - 1) // size + 1) if size and end > begin else range(0)
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
