"""What all readers of corpora share: decoding text files, choosing columns, noting what was used and left out."""

import codecs
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codec.foundation import UserError
from data.config import CorpusOptions
from data.corpora.utterance import Noticed, Utterance, Word, split_name
from data.decoding import AudioError, AudioObject, AudioPart, BadRow, printable

AUDIO_COLUMNS = (
    "audio", "path", "audio_filepath", "file_name", "audio_file", "audio_path", "filename", "file", "wav",
)  # fmt: skip
TEXT_COLUMNS = (
    "text", "text_normalized", "normalized_text", "sentence", "transcription", "transcript", "raw_text",
    "raw_transcription",
)  # fmt: skip
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "speaker_name")
LANGUAGE_COLUMNS = ("language", "lang", "locale", "language_id")
_STARTS, _ENDS = ("offset", "start", "start_time"), ("end", "end_time")
_TIMES = (*_STARTS, "duration", *_ENDS)
# Splits of Common Voice whose texts are not checked, or are wrong.
NOT_FOR_TRAINING = ("invalidated", "other", "reported", "unvalidated")
_NEWLINE = b"\n"
_TEXT_SUFFIXES = frozenset(
    {".txt", ".lab", ".csv", ".tsv", ".json", ".jsonl", ".trn", ".srt", ".vtt", ".textgrid", ".eaf", ".stm"}
    | {".scp", ".ctm", ".mlf"}
)
# Files of Kaldi's data folders, which have no extension.
_TEXT_NAMES = frozenset({"text", "transcript", "transcripts", "trans"})
_DOCUMENTS = ("readme", "license", "licence", "copying", "changelog", "requirements")

Field = Literal["audio", "text", "id", "speaker", "language", "split"]


@dataclass
class Reading(Noticed):
    """How to read a corpus, and what its readers noticed."""

    options: CorpusOptions = field(default_factory=CorpusOptions)

    def text(self, path: Path) -> str:
        """A text file as a whole. Raises UserError that names file and line where it is not in the encoding."""
        try:
            return path.read_bytes().decode(self.encoding)
        except UnicodeError as error:
            raise self._undecodable(path, error) from None

    def transcript(self, path: Path) -> str | None:
        """One utterance's text from a file of its own, None for an empty one.

        Raises AudioError where it is not in the encoding, which makes the utterance a failure.
        """
        try:
            return self.text(path).strip() or None
        except UserError as error:
            raise AudioError(str(error)) from None

    def lines(self, path: Path, newline: str = "\n", errors: str = "strict") -> Iterator[tuple[int, str]]:
        """Numbered lines, which end as `newline` says (see `open`); files with .gz are unpacked.

        Raises UserError that names file and line where it is not in the encoding.
        """
        compressed = path.suffix.lower() == ".gz"
        try:
            with (gzip.open if compressed else open)(
                path, "rt", encoding=self.encoding, errors=errors, newline=newline
            ) as file:
                yield from enumerate(file, start=1)  # type: ignore[misc]
        except UnicodeError as error:
            raise self._undecodable(path, error) from None
        except (EOFError, OSError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from None

    def choose(self, kind: Field, row: Mapping[str, Any], names: Sequence[str]) -> Any:
        """The first of these columns that holds something in this row; the one that the options name comes alone."""
        asked = getattr(self.options, f"{kind}_column", None)
        for name in (asked,) if asked is not None else names:
            value = row.get(name)
            if not _is_empty(value):
                self.used.setdefault(kind, {})[name] = None
                return value
        return None

    def wanted(self, texts: Sequence[str], ids: Sequence[str]) -> set[str]:
        """All columns from which `utterance` may take something."""
        asked = {value for name, value in vars(self.options).items() if name.endswith("_column")}
        return {*texts, *ids, *SPEAKER_COLUMNS, *LANGUAGE_COLUMNS, *_TIMES, *asked, "words"} - {None}

    def utterance(
        self,
        row: Mapping[str, Any],
        audio: str | AudioObject | None,
        fallback_id: str,
        split: str | None,
        place: str,
        texts: Sequence[str] = TEXT_COLUMNS,
        ids: Sequence[str] = ("id",),
        is_numbered: bool = False,
        channel: int | None = None,
    ) -> Utterance | None:
        """One row of a table; None if its split is not for training. A row that is wrong has a `BadRow` as audio.

        fallback_id: the id where the row has none
        split: where the row does not say it
        texts, ids: columns that may hold the text and the id, the preferred first
        channel: the one that the row is
        is_numbered: whether the row is of a numbered table: the fallback tells stretches apart,
            and a column `split` means something else
        """
        self.columns.update(dict.fromkeys(row))
        named = self.choose("split", row, () if is_numbered else ("split",))
        known = split_name(str(named)) if named is not None else split or "train"
        if named is not None and str(named).strip().lower() in NOT_FOR_TRAINING:
            self.left_out[f"rows of the split {named}, which are not for training"] += 1
            return None
        identity = fallback_id
        try:
            if audio is None:
                raise ValueError(
                    f"no audio: expected a field `audio` (or `path`), found {sorted(map(str, row))}"
                )
            if known is None:
                raise ValueError(f"unknown split {named!r}: expected train, validation or test")
            source: str | AudioObject | AudioPart = audio
            start, seconds = self._stretch(row, is_cut=is_numbered)
            if seconds is not None:
                source = AudioPart(audio, start, seconds, channel)
            elif channel is not None:
                source = AudioPart(audio, channel=channel)
            if seconds is not None and not is_numbered:
                identity = f"{fallback_id}_{start:.3f}_{start + seconds:.3f}"
            identity = _plain("id", self.choose("id", row, ids)) or identity
            words = row.get("words")
            try:
                parsed = parse_words(words)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"cannot read `words` ({error}): expected [[word, start, end], ...] in seconds"
                ) from None
            if parsed is not None:
                self.used.setdefault("words", {})["words"] = None
            return Utterance(
                id=identity,
                path=source,
                text=_plain("text", self.choose("text", row, texts)),
                speaker=_plain("speaker", self.choose("speaker", row, SPEAKER_COLUMNS)),
                language=_plain("language", self.choose("language", row, LANGUAGE_COLUMNS)),
                split=known,
                words=parsed,
            )
        except ValueError as error:
            return bad_utterance(identity, f"{place}: {error}", known or "train")

    def _stretch(self, row: Mapping[str, Any], is_cut: bool) -> tuple[float, float | None]:
        """Start and length in seconds of the stretch that a row is; no length for the whole recording.

        is_cut: whether one time alone may be that of a longer recording, from which the row's was cut
        """
        start = next((row[name] for name in _STARTS if not _is_empty(row.get(name))), None)
        end = next((row[name] for name in _ENDS if not _is_empty(row.get(name))), None)
        length = row.get("duration")
        if start is None or (end is None and _is_empty(length)):
            lone = end if start is None else start
            if lone is not None and not is_cut and _is_more_than_0(lone):
                raise ValueError(
                    f"it {'ends' if start is None else 'starts'} at {lone} s, the other end is missing"
                )
            if any(_is_nan(row.get(name)) for name in _TIMES) and not (lone is None and _is_empty(length)):
                raise ValueError("one of its times is NaN")
            return 0.0, None
        try:
            begin = float(start)
            seconds = float(length) if not _is_empty(length) else float(end) - begin  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(
                f"cannot read its times ({start!r} and {length if end is None else end!r})"
            ) from None
        if not (0 <= begin < math.inf and 0 < seconds < math.inf):
            raise ValueError(f"it lasts from {begin:g} to {begin + seconds:g} s")
        self.used.setdefault("times", {}).update(
            {name: None for name in _TIMES if not _is_empty(row.get(name))}
        )
        return begin, seconds

    @property
    def encoding(self) -> str:
        """Of text files, as Python calls it."""
        asked = self.options.encoding
        return "utf-8-sig" if codecs.lookup(asked).name == "utf-8" else asked

    def _undecodable(self, path: Path, error: UnicodeError) -> UserError:
        content = (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb").read()
        line = ""
        try:
            content.decode(self.encoding)
        except UnicodeDecodeError as found:
            line = f", line {1 + content[: found.start].count(_NEWLINE)}"
        except UnicodeError:
            pass
        guess = ", perhaps utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        return UserError(
            f"{printable(str(path))}{line}: not {self.options.encoding}: say what it is with --encoding{guess}"
        )


def parse_json(content: str | bytes) -> Any:
    """What JSON says. Raises ValueError for what is none, or is nested too deep to be read."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def parse_words(words: Any) -> tuple[Word, ...] | None:
    """Word times from lists or dicts; None when there are none.

    Raises ValueError for anything else, for one time without the other, and for times that run backwards.
    """
    if words is None or words == "":
        return None
    if isinstance(words, str):
        words = parse_json(words)
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


def is_text_file(name: str) -> bool:
    """Whether a file may hold transcripts, by its extension."""
    path = Path(name.lower())
    return path.name in _TEXT_NAMES or (path.suffix in _TEXT_SUFFIXES and path.stem not in _DOCUMENTS)


def bad_utterance(identity: str, reason: str, split: str = "train") -> Utterance:
    """Stands for a row that cannot be used; it is counted with the failures."""
    return Utterance(printable(identity), BadRow(" ".join(printable(reason).split())), split=split)


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_more_than_0(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return False  # a column of this name that means something else


def _plain(kind: str, value: Any) -> str | None:
    """Text that can be written as UTF-8. Raises ValueError for another."""
    if value is None:
        return None
    if isinstance(value, Mapping | list | bool) and kind in ("text", "id"):
        raise ValueError(f"its {kind} is no text ({printable(str(value))[:60]})")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"its {kind} holds half of a surrogate pair ({printable(text)[:60]})") from None
    return text
