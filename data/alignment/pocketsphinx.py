"""Forced alignment of US English with pocketsphinx.

It needs no network: its package brings the acoustic model and a pronouncing dictionary.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.foundation import UserError
from data.alignment.aligner import Alignment, AlignmentError, is_spoken
from data.corpora import Utterance, Word

_FRAMES_PER_SECOND = 100
_MAX_SECONDS = 300.0  # the search keeps all of a recording's paths in memory
_MIN_SECONDS_PER_PHONE = 0.025
# A drawn-out "Ah" is one phone of 0.8 s; long words have no phones of that length throughout.
_MAX_SECONDS_OF_WORD, _MAX_SECONDS_PER_PHONE = 0.5, 0.3
_SCORE_UNIT = 1024  # pocketsphinx divides its log-likelihoods by this to fit them into 16 bits

# Letters as they are mostly spoken, for words that nobody can pronounce: good enough to step over them.
_SOUNDS = {
    "ch": "CH", "ck": "K", "ee": "IY", "gh": "G", "ng": "NG", "oo": "UW", "ou": "AW", "ph": "F", "qu": "K W",
    "sh": "SH", "th": "TH", "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH",
    "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "OW", "p": "P", "q": "K", "r": "R",
    "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
_SOUND = re.compile("|".join(_SOUNDS))


@dataclass(frozen=True)
class _Spoken:
    """How a written word is said.

    entries: words of the dictionary; empty where nothing is said, or where nobody knows what is said
    known: whether the pronunciation is known, so that the word can be placed
    """

    entries: tuple[str, ...]
    known: bool = True


@dataclass
class PocketSphinxAligner:
    """Aligns words by their phones.

    `pronounce` gives the phones (CMU's, upper case) of words that the dictionary lacks. Without it, spelling rules give
    rough phones to step over such words, which get no times. A word with a digit may be said in several ways: it gets
    no times, and neither do its neighbours, whose audio it may have taken.
    """

    pronounce: Callable[[str], Sequence[str]] | None = None
    sampling_rate: int = field(default=16_000, init=False)
    in_processes: bool = field(default=True, init=False)
    rejects_low_scores: bool = field(default=True, init=False)

    @property
    def name(self) -> str:
        return "pocketsphinx" + (f", words it lacks by {self.pronounce.__name__}" if self.pronounce else "")

    @cached_property
    def _decoder(self) -> Any:
        try:
            import pocketsphinx
        except ImportError:
            raise UserError("pocketsphinx is missing: pip install 'codec-slm[eval]'") from None
        # Mean normalisation over the whole utterance, and beams so wide that hardly anything is pruned.
        return pocketsphinx.Decoder(
            lm=None, cmn="batch", beam=1e-120, wbeam=1e-120, pbeam=1e-120, bestpath=False, loglevel="FATAL"
        )

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """Word times; the score is the mean log-likelihood a frame, relative to the best state."""
        if utterance.language and not utterance.language.lower().startswith("en"):
            raise AlignmentError(f"pocketsphinx aligns English, and this is {utterance.language!r}")
        return self.align_samples(_samples(blocks, self.sampling_rate), utterance.text or "")

    def align_samples(self, samples: np.ndarray, text: str) -> Alignment:
        """The same for (samples,) int16 at 16 kHz. Raises AlignmentError."""
        written = text.split()
        spoken = [self._say(word) for word in written]
        expected = [entry for word in spoken for entry in word.entries]
        if not expected:
            raise AlignmentError("no word of the transcript can be pronounced")
        segments = self._search(samples, expected)
        times: list[Word] = []
        segment_of = iter(segments)
        for word, said in zip(written, spoken, strict=True):
            pieces = [next(segment_of) for _ in said.entries]
            if not pieces or not said.known:
                times.append(Word(word, None, None))
                continue
            start = pieces[0].start_frame / _FRAMES_PER_SECOND
            end = (pieces[-1].end_frame + 1) / _FRAMES_PER_SECOND
            phones = sum(len(self._decoder.lookup_word(piece.word).split()) for piece in pieces)
            longest = _MAX_SECONDS_OF_WORD + phones * _MAX_SECONDS_PER_PHONE
            if not phones * _MIN_SECONDS_PER_PHONE <= end - start <= longest:
                raise AlignmentError(
                    f"{word!r} would last {end - start:.2f} s: the audio does not sound like its text"
                )
            times.append(Word(word, start, end))
        for index, said in enumerate(spoken):
            if not said.entries and not said.known:
                for near in range(max(0, index - 1), min(len(times), index + 2)):
                    times[near] = Word(written[near], None, None)
        if not any(word.placed for word in times):
            raise AlignmentError("no word could be placed")
        frames = sum(segment.end_frame + 1 - segment.start_frame for segment in segments)
        score = _SCORE_UNIT * sum(math.log(segment.ascore) for segment in segments) / frames
        return Alignment(tuple(times), score)

    def _search(self, samples: np.ndarray, expected: list[str]) -> list[Any]:
        """A segment for each of the expected words, without pauses."""
        decoder = self._decoder
        decoder.set_align_text(" ".join(expected))
        decoder.reinit_feat()  # the feature extraction remembers the utterance before, and times would move by a frame
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            raise AlignmentError("no path through the transcript: the audio does not sound like its text")
        segments = [segment for segment in decoder.seg() if not _is_filler(segment.word)]
        if [re.sub(r"\(\d+\)$", "", segment.word) for segment in segments] != expected:
            raise AlignmentError("no path through the transcript: the audio does not sound like its text")
        return segments

    def _say(self, word: str) -> _Spoken:
        plain = "".join(
            c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c)
        )
        plain = plain.replace("\u2019", "'")
        if not is_spoken(plain):
            return _Spoken(())
        if any(c.isalnum() and not "a" <= c <= "z" for c in plain):
            return _Spoken((), known=False)
        bare = re.sub(r"[^a-z'-]", "", plain).strip("'-")
        parts = tuple(part for part in bare.split("-") if part.strip("'"))
        for candidate in ((bare,), parts):
            if all(self._decoder.lookup_word(part) for part in candidate):
                return _Spoken(candidate)
        if self.pronounce is not None:
            for part in parts:
                if not self._decoder.lookup_word(part):
                    self._decoder.add_word(part, " ".join(self.pronounce(part)), True)
            return _Spoken(parts)
        # Under names of their own: the rules must not pass for the dictionary when the word comes again.
        entries = tuple(f"~{part}" for part in parts)
        for part, entry in zip(parts, entries, strict=True):
            if not self._decoder.lookup_word(entry):
                self._decoder.add_word(
                    entry, " ".join(_SOUNDS[sound] for sound in _SOUND.findall(part)), True
                )
        return _Spoken(entries, known=False)


def _is_filler(word: str) -> bool:
    return word.startswith(("<", "[")) or word == "(NULL)"


def _samples(blocks: Iterator[Tensor], sampling_rate: int) -> np.ndarray:
    """A recording as (samples,) int16, its peak at half of full scale."""
    parts: list[Tensor] = []
    seconds = 0.0
    for block in blocks:
        parts.append(block)
        seconds += len(block) / sampling_rate
        if seconds > _MAX_SECONDS:
            raise AlignmentError(
                f"longer than {_MAX_SECONDS:g} s, which pocketsphinx cannot hold: use a CTC model, or cut it first"
            )
    waveform = torch.cat(parts)
    return (waveform / waveform.abs().max().clamp_min(1e-4) * 16384).to(torch.int16).numpy()
