"""Token datasets put together, filtered and laid out in shards again, as one that is like any other."""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from codec.foundation import Progress, StopSignal, UserError, first_line
from data.sharded_directory import FillResult, Shard
from data.token_dataset import TokenDataset
from data.token_files import find_files
from data.tokenization.directory import TokenDirectory
from data.tokenization.plan import shard_bounds

_ORDER = {"train": 0, "validation": 1, "test": 2}


def combine_datasets(
    paths: Sequence[str], output: str, where: str | None = None, shards: int | None = None
) -> FillResult:
    """Write the rows of all datasets at `paths`, split by split, to the token dataset at `output`.

    Rows keep their order. Of ids that occur again, the second gets `#2` at its end. Works as `tokenize_corpus` does: on
    any number of processes, and it goes on after a kill.

    where: what a row must be, an expression for `pandas.DataFrame.query` over split, id, text, speaker, language,
        seconds.
    shards: files of a split at most; by default one a quarter hour, up to 1,024.

    Raises UserError for datasets of several codecs, for no rows, and when `output` holds something else.
    """
    parts = [TokenDataset.open(path, split) for path in paths for split in _splits_with_rows(Path(path))]
    for part in parts[1:]:
        parts[0].info.check_same(part.info, what=part.name, as_many=True)
    parts.sort(key=lambda part: (_ORDER.get(part.split, 3), part.split))
    kept = [_rows(part, where) for part in parts]
    if not sum(map(len, kept)):
        raise UserError(f"no row is left{f' where {where}' if where else ''}")
    directory = TokenDirectory(output, _identity(parts, kept, Path(output).name, where, shards))
    if directory.prepare():
        return directory.result()
    directory.begin()
    places = [(part, int(row)) for part, rows in zip(parts, kept, strict=True) for row in rows]
    ids = _unique([part.id(row) for part, row in places])

    def make(own: Sequence[Shard], stop: StopSignal) -> None:
        with Progress(
            sum(shard.stop - shard.start for shard in own), unit="rows", label="combining"
        ) as progress:
            for shard in own:
                if stop.requested:
                    return
                if not directory.has(shard):
                    span = slice(shard.start, shard.stop)
                    named = zip(places[span], ids[span], strict=True)
                    rows = [part.row(row, identity) for (part, row), identity in named]
                    directory.write_rows(shard, rows, failures=[])
                progress.update(shard.stop - shard.start)

    return directory.fill(_shards(places, shards), make)


def _splits_with_rows(path: Path) -> list[str]:
    found = find_files(path)
    counts = found.metadata.get("splits", {})
    return [split for split in found.splits if counts.get(split, {}).get("rows") != 0]


def _rows(part: TokenDataset, where: str | None) -> np.ndarray:
    """Numbers of the rows (rows,) that are wanted."""
    if where is None:
        return np.arange(len(part))
    columns = ("id", "text", "speaker", "language", "seconds")
    frame = pd.DataFrame({name: part.column(name) for name in columns}).assign(split=part.split)
    try:
        return frame.query(where, engine="python").index.to_numpy()
    except Exception as error:  # whatever a wrong expression makes of pandas
        raise UserError(
            f"--where {where!r}: {first_line(error)}; there are {', '.join(frame.columns)}, as in "
            "\"seconds < 20 and speaker == 'anna'\""
        ) from None


def _shards(places: Sequence[tuple[TokenDataset, int]], most: int | None) -> list[Shard]:
    shards, first = [], 0
    while first < len(places):
        split = places[first][0].split
        last = next((n for n in range(first, len(places)) if places[n][0].split != split), len(places))
        seconds = np.array([part.seconds(row) for part, row in places[first:last]])
        bounds, _ = shard_bounds([seconds], most)
        shards += [
            Shard(split, n, len(bounds) - 1, first + start, first + stop)
            for n, (start, stop) in enumerate(pairwise(bounds))
        ]
        first = last
    return shards


def _unique(ids: Sequence[str]) -> list[str]:
    taken, seen, unique = set(ids), set[str](), []
    for identity in ids:
        number, name = 1, identity
        while name in seen or (number > 1 and name in taken):
            number += 1
            name = f"{identity}#{number}"
        seen.add(name)
        unique.append(name)
    return unique


def _identity(
    parts: Sequence[TokenDataset],
    kept: Sequence[np.ndarray],
    name: str,
    where: str | None,
    shards: int | None,
) -> dict[str, Any]:
    """As of `tokenize_corpus`, of datasets for a corpus."""
    hashes = [[part.split, part.content_hash] for part in parts]
    about = {
        "name": name,
        "format": "combined",
        "utterances": sum(map(len, kept)),
        "hash": hashlib.sha256(json.dumps([hashes, where]).encode()).hexdigest()[:16],
    }

    def of_all(key: str, several: str | None = None) -> str | None:
        values = list(dict.fromkeys(str(part.metadata[key]) for part in parts if part.metadata.get(key)))
        return values[0] if len(values) == 1 else several or "; ".join(values) or None

    options = {
        "where": where,
        "shards": shards,
        "precision": of_all("precision") or "unknown precision",
        "source": of_all("source"),
        "licence": of_all("licence", "other")
        if any(part.metadata.get("licence") for part in parts)
        else None,
    }
    return {"codec": parts[0].info.to_dict(), "corpus": about, "options": options}
