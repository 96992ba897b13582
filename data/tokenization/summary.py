"""What `tokenize` says of a corpus: before it starts what it understood, after it what was left out and why."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data.audio import AudioInfo
from data.corpora.utterance import Corpus, Utterance
from data.decoding import BadRow, printable

_BESIDE = (".txt", ".lab", ".normalized.txt", ".original.txt", ".json", ".TextGrid", ".srt", ".vtt")
_LOOKED_AT = 200  # rows without text for which a file beside them is looked for
_SHOWN = 3  # reasons


def understood(corpus: Corpus, headers: Sequence[AudioInfo | None]) -> str:
    """Four lines: layout, splits with rows and hours, columns used and ignored, share of rows with text."""
    noticed = corpus.noticed
    seconds: Counter[str] = Counter()
    for utterance, header in zip(corpus.utterances, headers, strict=True):
        seconds[utterance.split] += header.seconds if header else 0.0  # type: ignore[assignment]
    splits = "; ".join(
        f"{name} {count:,} rows, {seconds[name] / 3600:,.2f} h" for name, count in corpus.splits.items()
    )
    used = ", ".join(f"{'/'.join(columns)} ({kind})" for kind, columns in noticed.used.items())
    ignored = ", ".join(noticed.ignored)
    texts = sum(utterance.text is not None for utterance in corpus.utterances)
    total = len(corpus.utterances)
    return "\n".join(
        [
            f"layout:  {corpus.format} ({printable(corpus.location)})",
            f"splits:  {splits}",
            f"columns: {used or 'none'}; ignored: {ignored or 'none'}",
            f"text:    {texts / total:.1%} of {total:,} rows",
        ]
    )


def lost_texts(corpus: Corpus) -> str | None:
    """A warning where rows end up without text although there is something that looks like it; else None."""
    bare = [u for u in corpus.utterances if u.text is None and not isinstance(u.path, BadRow)]
    if not bare:
        return None
    signs = [f"{count:,} {suffix} files" for suffix, count in corpus.noticed.text_files.most_common(4)]
    beside = sum(_has_text_beside(utterance) for utterance in bare[:_LOOKED_AT])
    if beside and not signs:
        signs.append(f"files beside {'at least ' if len(bare) > _LOOKED_AT else ''}{beside:,} recordings")
    if len(bare) == len(corpus.utterances) and corpus.noticed.ignored:
        signs.append(f"the columns {', '.join(corpus.noticed.ignored)} (--text_column takes one)")
    if not signs:
        return None
    return (
        f"{len(bare):,} of {len(corpus.utterances):,} rows have no text, but these may hold transcripts and were not "
        f"read: {'; '.join(signs)}"
    )


def left_out(corpus: Corpus, failures: Path) -> str | None:
    """A line about what is not in the dataset, and a line of the first reasons of failures; None if nothing is."""
    lines = []
    if corpus.noticed.left_out:
        parts = (f"{count:,} {what}" for what, count in corpus.noticed.left_out.most_common())
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


def _has_text_beside(utterance: Utterance) -> bool:
    if not isinstance(utterance.path, str | os.PathLike):
        return False
    stem = os.path.splitext(os.fspath(utterance.path))[0]
    return any(os.path.exists(stem + suffix) for suffix in _BESIDE)
