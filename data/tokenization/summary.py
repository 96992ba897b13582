"""What `tokenize` says of a corpus: before it starts what it understood, after it what was left out and why."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data.corpora.utterance import LOOKED_AT, Corpus
from data.decoding import printable

_SHOWN = 3  # reasons


def understood(corpus: Corpus, seconds: Mapping[str, float]) -> str:
    """Four lines: layout, splits with rows and hours, columns used and ignored, share of rows with text.

    seconds: of audio in each split
    """
    noticed, tally = corpus.noticed, corpus.tally()
    splits = "; ".join(
        f"{name} {count:,} rows, {seconds[name] / 3600:,.2f} h" for name, count in corpus.splits.items()
    )
    used = ", ".join(f"{'/'.join(columns)} ({kind})" for kind, columns in noticed.used.items())
    ignored = ", ".join(noticed.ignored)
    total = len(corpus.utterances)
    return "\n".join(
        [
            f"layout:  {corpus.format} ({printable(corpus.location)})",
            f"splits:  {splits}",
            f"columns: {used or 'none'}; ignored: {ignored or 'none'}",
            f"text:    {tally.texts / total:.1%} of {total:,} rows",
        ]
    )


def lost_texts(corpus: Corpus) -> str | None:
    """A warning where rows end up without text although there is something that looks like it; else None."""
    tally, total = corpus.tally(), len(corpus.utterances)
    if not tally.bare:
        return None
    signs = [f"{count:,} {suffix} files" for suffix, count in _ranked(corpus.noticed.text_files)[:4]]
    if tally.beside and not signs:
        at_least = "at least " if tally.bare > LOOKED_AT else ""
        signs.append(f"files beside {at_least}{tally.beside:,} recordings")
    if tally.bare == total and corpus.noticed.ignored:
        signs.append(f"the columns {', '.join(corpus.noticed.ignored)} (--text_column takes one)")
    if not signs:
        return None
    return (
        f"{tally.bare:,} of {total:,} rows have no text, but these may hold transcripts and were not "
        f"read: {'; '.join(signs)}"
    )


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first; of equals not the first that the directory listed, which is by chance."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def left_out(corpus: Corpus, failures: Path) -> str | None:
    """A line about what is not in the dataset, and a line of the first reasons of failures; None if nothing is."""
    lines = []
    if parts := [f"{count:,} {what}" for what, count in _ranked(corpus.noticed.left_out) if count]:
        lines.append(f"left out: {'; '.join(parts)}")
    reasons = list(_reasons(failures))
    if reasons:
        more = f"; and {len(reasons) - _SHOWN:,} more" if len(reasons) > _SHOWN else ""
        lines.append(f"failed: {'; '.join(reasons[:_SHOWN])}{more}")
    return "\n".join(lines) or None


def _reasons(file: Path) -> Iterable[str]:
    if not file.is_file():
        return
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            failure: dict[str, Any] = json.loads(line)
            yield failure["reason"]
