"""A manifest: one utterance a line, as JSON lines or as CSV (or TSV) with a header.

Fields: `audio` (also `path`, `audio_filepath` or `file_name`) and, if known, `id`, `text`, `speaker`, `language`,
`split` and `words`. Words are `[[word, start, end], ...]` or `[{"word": ..., "start": ..., "end": ...}, ...]` in
seconds, with both times null for a word whose times are not known; a CSV cell holds them as JSON. Relative paths start
from the manifest's directory. Other fields are ignored.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from codec.foundation import UserError
from data.corpora.utterance import Utterance, Word, split_name

AUDIO_FIELDS = ("audio", "path", "audio_filepath", "file_name")


def read_manifest(path: Path) -> list[Utterance]:
    """The utterances of a `.jsonl`, `.json`, `.csv` or `.tsv` file.

    Raises UserError that names the line it cannot understand.
    """
    return [_utterance(row, path, number) for number, row in _rows(path)]


def parse_words(words: Any) -> tuple[Word, ...] | None:
    """Word times from lists or dicts; None when there are none.

    Raises ValueError for anything else, for one time without the other, and for times that run backwards.
    """
    if words is None or words == "":
        return None
    if isinstance(words, str):
        words = json.loads(words)
    parsed = []
    former = 0.0  # where the placed word before this one starts
    for item in words:
        word, start, end = (item["word"], item["start"], item["end"]) if isinstance(item, Mapping) else item
        if (start is None) != (end is None):
            raise ValueError(f"the word {word!r} has one of its two times only")
        if start is None:
            parsed.append(Word(str(word), None, None))
            continue
        start, end = float(start), float(end)
        if not 0.0 <= start <= end < float("inf"):
            raise ValueError(f"the word {word!r} lasts from {start:g} to {end:g}")
        if start < former:
            raise ValueError(f"the word {word!r} starts before the word ahead of it")
        former = start
        parsed.append(Word(str(word), start, end))
    return tuple(parsed)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and fields of every line that holds anything."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            if path.suffix.lower() in (".csv", ".tsv"):
                csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # word times of a long recording
                reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, line {number}: expected a JSON object, found {line[:40]!r}")
                    yield number, row
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: not UTF-8 ({error.reason}): convert it, for instance with iconv"
            ) from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg})") from None


def _utterance(row: Mapping[str, Any], manifest: Path, number: int) -> Utterance:
    place = f"{manifest}, line {number}"
    audio = next((row[name] for name in AUDIO_FIELDS if row.get(name)), None)
    if not isinstance(audio, str):
        raise UserError(
            f"{place}: no audio: expected a field `audio` (or `path`), found {sorted(map(str, row))}"
        )
    split = split_name(str(row.get("split") or "train"))
    if split is None:
        raise UserError(f"{place}: unknown split {row['split']!r}: expected train, validation or test")
    try:
        words = parse_words(row.get("words"))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{place}: cannot read `words` ({error}): expected [[word, start, end], ...] in seconds"
        ) from None
    return Utterance(
        id=_text(row.get("id")) or Path(audio).with_suffix("").as_posix(),
        path=str(manifest.parent / audio),  # an absolute path stays as it is
        text=_text(row.get("text")),
        speaker=_text(row.get("speaker")),
        language=_text(row.get("language")),
        split=split,
        words=words,
    )


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
