"""Word times out of TextGrid files, matched to transcripts that may be written otherwise."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path

from torch import Tensor

from codec.foundation import UserError
from data.alignment.aligner import Alignment, AlignmentError
from data.alignment.textgrid import Interval, word_intervals
from data.corpora import Utterance, Word

_SILENCE = {"", "sil", "sp", "<eps>", "<p>", "<sil>", "<silence>", "[noise]", "[silence]", "{sl}"}
_UNKNOWN = {"<unk>", "spn", "<spn>", "[unk]"}  # a word that the aligner's dictionary lacks
_UNSPOKEN = re.compile(r"[\W_]+")


@dataclass
class TextGridAligner:
    """Takes the times from `<id>.TextGrid` below a directory.

    A file belongs to the utterance whose id is its path without extension, or, where that is none, its name without
    extension or the last part of the id.
    """

    directory: str
    sampling_rate: int = field(default=16_000, init=False)
    in_processes: bool = field(default=True, init=False)
    rejects_low_scores: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        return f"TextGrid files in {Path(self.directory).name}"

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """Paths by relative path without extension, and by name without extension."""
        root = Path(self.directory)
        if not root.is_dir():
            raise UserError(f"{self.directory}: no such directory of TextGrid files")
        found: dict[str, list[str]] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                stem, extension = os.path.splitext(name)
                if extension.lower() == ".textgrid":
                    whole = Path(folder, stem).relative_to(root).as_posix()
                    for key in {whole, stem}:
                        found.setdefault(key, []).append(os.path.join(folder, name))
        if not found:
            raise UserError(f"{self.directory}: no .TextGrid files in it")
        return found

    def check(self) -> None:
        """Look for the files. Raises UserError when there are none."""
        assert self._files

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """The times of the transcript's words; the recording is not looked at, and there is no score."""
        paths = self._files.get(utterance.id) or self._files.get(utterance.id.rpartition("/")[2]) or []
        if len(paths) != 1:
            several = (
                f"{len(paths)} TextGrid files have its name" if paths else "no TextGrid file has its name"
            )
            raise AlignmentError(several)
        try:
            intervals = word_intervals(Path(paths[0]))
        except UserError as error:
            raise AlignmentError(str(error)) from None
        spoken = [i for i in intervals if i.label.strip().lower() not in _SILENCE]
        words = match_intervals((utterance.text or "").split(), spoken)
        if not any(word.placed for word in words):
            raise AlignmentError(f"{paths[0]}: none of its words is in the transcript")
        return Alignment(tuple(words))


def match_intervals(written: Sequence[str], spoken: Sequence[Interval]) -> list[Word]:
    """Times for written words from intervals of spoken ones, as far as the two say the same letters.

    One written word may be several intervals ("well-known") or several one. Where the two differ, words are not
    placed, except that as many written words as there are intervals of unknown words have those.
    """
    mine, theirs = [_letters(word) for word in written], [_label(interval) for interval in spoken]
    times: dict[int, tuple[float, float]] = {}
    matcher = SequenceMatcher(None, mine, theirs, autojunk=False)
    for _, first, last, begin, end in matcher.get_opcodes():
        said = [index for index in range(first, last) if mine[index]]  # a dash takes no time
        heard = range(begin, end)
        if [mine[i] for i in said] == [theirs[j] for j in heard] or (
            len(said) == len(heard) and all(theirs[j] is None for j in heard)
        ):
            times |= {i: (spoken[j].start, spoken[j].end) for i, j in zip(said, heard, strict=True)}
        else:
            times |= _by_letters(said, mine, heard, theirs, spoken)
    return [Word(word, *times.get(index, (None, None))) for index, word in enumerate(written)]


def _by_letters(
    said: Sequence[int],
    mine: Sequence[str],
    heard: range,
    theirs: Sequence[str | None],
    spoken: Sequence[Interval],
) -> dict[int, tuple[float, float]]:
    """Times of words that begin and end where intervals do, if both spell the same in all."""
    if any(theirs[j] is None for j in heard):
        return {}
    if "".join(mine[i] for i in said) != "".join(theirs[j] or "" for j in heard):
        return {}
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    position = 0
    for j in heard:
        starts[position] = spoken[j].start
        position += len(theirs[j] or "")
        ends[position] = spoken[j].end
    times = {}
    position = 0
    for i in said:
        start, position = position, position + len(mine[i])
        if start in starts and position in ends:
            times[i] = (starts[start], ends[position])
    return times


def _letters(word: str) -> str:
    return _UNSPOKEN.sub("", word.casefold())


def _label(interval: Interval) -> str | None:
    """The letters of an interval's word; None for an unknown one."""
    label = interval.label.strip().lower()
    return None if label in _UNKNOWN else _letters(label)
