"""Segments of waveforms for codec training, with what is said in them: a pure function of (seed, index)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.foundation import UserError, generator
from data.augmentation import Drawn, draw
from data.config import Augmentation
from data.corpora.utterance import Utterance, Word
from data.decoding import AudioError
from data.waveforms import FileWaveforms, MemoryWaveforms, Waveforms

# After a broken recording another segment is drawn; so many in a row mean that the corpus is broken.
_ATTEMPTS = 20
_BABBLE_VOICES = 4


class Segment(TypedDict):
    """One training example."""

    waveform: Tensor  # (segment_samples,) float32, zeros beyond `length`
    length: int  # samples that are audio
    utterance: int  # where it came from: index into `SegmentDataset.waveforms`
    start: int  # and its first sample there
    heard: NotRequired[Tensor]  # like `waveform`, with noise: the input, if an augmentation has noise
    reference: NotRequired[Tensor]  # (reference_samples,) another stretch of the same recording: who speaks
    reference_length: NotRequired[int]  # its samples that are audio
    labels: NotRequired[Tensor]  # (characters,) int64 of what is said in it, with a labeller
    span: NotRequired[Tensor]  # (2,) int64 first sample and end of the stretch in which exactly that is said
    said: NotRequired[Tensor]  # (frames,) int64 number of the character that is said, -1 for unknown


class SegmentDataset(Dataset[Segment]):
    """Random segments of a corpus, at a random level, with balanced speakers.

    Index i always gives the same segment, in any process and order, so a run resumes by counting. Any i >= 0 is valid.
    `len()` is the number of segments that hold as much audio as the corpus.

    utterances: what to cut from, or `Waveforms` that are open already
    segment_samples: length of a segment; shorter utterances are padded with zeros at the end
    gain_db: range of the peak level to scale each utterance to, in dB of full scale; None leaves levels as recorded
    max_gain_db: near-silence is amplified by no more than this
    speaker_balance: 0 draws speakers as often as they speak in the corpus, 1 draws all equally often
    preload: decode everything into memory first
    labeller: finds what is said in a segment; without one, segments come without labels
    frame_samples: length of the frames of which the labeller tells what is said in each, instead of labels for the
        segment; 0: labels
    augmentation: changes that are drawn for every segment
    reference_samples: length of a second stretch of the same recording, at the same level and with the same changes
        but noise; 0: there is none

    Raises UserError when nothing can be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance] | Waveforms,
        sampling_rate: int,
        segment_samples: int,
        seed: int = 0,
        gain_db: tuple[float, float] | None = None,
        max_gain_db: float = 40.0,
        speaker_balance: float = 1.0,
        preload: bool = False,
        labeller: "Labeller | None" = None,
        augmentation: Augmentation | None = None,
        reference_samples: int = 0,
        frame_samples: int = 0,
    ) -> None:
        if segment_samples < 1:
            raise UserError(f"segment_samples is {segment_samples}: expected at least 1")
        if gain_db is not None and gain_db[0] > gain_db[1]:
            raise UserError(f"gain_db is {gain_db}: expected the lower level first")
        if not isinstance(utterances, Sequence):
            self.waveforms: Waveforms = utterances
        elif preload:
            self.waveforms = MemoryWaveforms.preload(utterances, sampling_rate)
        else:
            self.waveforms = FileWaveforms(utterances, sampling_rate)
        if self.waveforms.sampling_rate != sampling_rate:
            raise UserError(
                f"the waveforms were decoded at {self.waveforms.sampling_rate} Hz, not at {sampling_rate} Hz"
            )
        self.segment_samples, self.seed = segment_samples, seed
        self.gain_db, self.max_gain_db = gain_db, max_gain_db
        self.labeller, self.augmentation = labeller, augmentation
        self.reference_samples, self.frame_samples = reference_samples, frame_samples
        weights = sampling_weights(self.waveforms.lengths, self.waveforms.speakers, speaker_balance)
        self._cumulative = np.cumsum(weights)

    def __len__(self) -> int:
        return max(1, int(self.waveforms.lengths.sum()) // self.segment_samples)

    def __getitem__(self, index: int) -> Segment:
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                drawn = None
                if self.augmentation is not None:
                    drawn = draw(self.augmentation, generator(self.seed, "augmentation", index, attempt))
                return self._draw(generator(self.seed, "segment", index, attempt), drawn)
            except AudioError as error:
                reason = str(error)
        raise UserError(f"{_ATTEMPTS} recordings in a row cannot be read (the last: {reason})")

    def _draw(self, random: np.random.Generator, drawn: Drawn | None) -> Segment:
        utterance = int(
            np.searchsorted(self._cumulative, random.random() * self._cumulative[-1], side="right")
        )
        audio, start = self._stretch(random, utterance, self.segment_samples, drawn)
        read = len(audio)
        gain = 1.0
        if self.gain_db is not None:
            level = 10.0 ** (random.uniform(*self.gain_db) / 20.0)
            peak = max(self.waveforms.peak(utterance), 1e-9)
            gain = min(level / peak, 10.0 ** (self.max_gain_db / 20.0))
        audio = self._changed(audio * gain, drawn, self.segment_samples)
        segment: Segment = {
            "waveform": _padded(audio, self.segment_samples),
            "length": len(audio),
            "utterance": utterance,
            "start": start,
        }
        if drawn is not None and drawn.snr_db is not None:
            segment["heard"] = _padded(drawn.with_noise(audio, self._voices), self.segment_samples)
        if self.reference_samples:
            other, _ = self._stretch(random, utterance, self.reference_samples, drawn)
            other = self._changed(other * gain, drawn, self.reference_samples)
            segment["reference"] = _padded(other, self.reference_samples)
            segment["reference_length"] = len(other)
        if self.labeller is not None:
            identity = self.waveforms.ids[utterance]
            speed = 1.0 if drawn is None else drawn.speed
            if self.frame_samples:
                frames = np.arange(self.segment_samples // self.frame_samples)
                centres = (frames + 0.5) * self.frame_samples * speed  # samples of the recording
                found = self.labeller.said(identity, start + centres)
                segment["said"] = torch.from_numpy(np.where(centres < read, found, -1))
            else:
                total = int(self.waveforms.lengths[utterance])
                said = self.labeller.label(identity, start, read, total)
                segment["labels"] = torch.from_numpy(said.characters)
                span = [min(len(audio), round(sample / speed)) for sample in (said.start, said.end)]
                segment["span"] = torch.tensor(span)
        return segment

    def _stretch(
        self, random: np.random.Generator, utterance: int, samples: int, drawn: Drawn | None
    ) -> tuple[Tensor, int]:
        """A random stretch of a recording that becomes `samples` samples, and its first sample there."""
        source = samples if drawn is None else drawn.source_samples(samples)
        start = int(random.integers(0, max(0, int(self.waveforms.lengths[utterance]) - source) + 1))
        return self.waveforms.read(utterance, start, source), start

    def _changed(self, audio: Tensor, drawn: Drawn | None, most: int) -> Tensor:
        return audio if drawn is None else drawn.change(audio, self.waveforms.sampling_rate)[:most]

    def _voices(self, random: np.random.Generator) -> list[Tensor]:
        """Stretches of a few utterances, for babble."""
        found = []
        for _ in range(_BABBLE_VOICES):
            utterance = int(random.integers(len(self.waveforms.lengths)))
            free = max(0, int(self.waveforms.lengths[utterance]) - self.segment_samples)
            found.append(
                self.waveforms.read(utterance, int(random.integers(0, free + 1)), self.segment_samples)
            )
        return found


def sampling_weights(
    lengths: np.ndarray, speakers: Sequence[str | None], speaker_balance: float
) -> np.ndarray:
    """Weight of each utterance (utterances,), summing to 1: within a speaker in proportion to its length.

    A speaker's share is (seconds spoken) ** (1 - speaker_balance), normalised. Utterances of unknown speakers count as
    one speaker's.
    """
    if not 0.0 <= speaker_balance <= 1.0:
        raise UserError(
            f"speaker_balance is {speaker_balance}: expected 0 (as in the corpus) to 1 (all equal)"
        )
    names = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
    speaker = np.array([names[name] for name in speakers])  # (utterances,)
    spoken = np.bincount(speaker, weights=lengths)  # (speakers,)
    share = spoken ** (1.0 - speaker_balance)
    weights = lengths / spoken[speaker] * share[speaker]
    return weights / weights.sum()


class MixedSegments(Dataset[Segment]):
    """Segments from several corpora: the source of segment i is drawn by weight, as a function of (seed, i)."""

    def __init__(self, sources: Sequence[SegmentDataset], weights: Sequence[float], seed: int = 0) -> None:
        if len(sources) != len(weights) or not sources or min(weights) < 0 or sum(weights) <= 0:
            raise UserError(
                f"{len(sources)} corpora with weights {list(weights)}: give each corpus a weight above 0"
            )
        self.sources = list(sources)
        self.seed = seed
        self._cumulative = np.cumsum(weights) / np.sum(weights)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, index: int) -> Segment:
        draw = generator(self.seed, "mixture", index).random()
        source = int(np.searchsorted(self._cumulative, draw, side="right"))
        return self.sources[min(source, len(self.sources) - 1)][index]


@dataclass(frozen=True)
class SegmentLabels:
    """Characters of a segment."""

    characters: np.ndarray  # (characters,) int64 numbers in the alphabet; empty where nothing is known
    start: int  # first sample of the stretch, from the segment's beginning
    end: int


class Labeller:
    """Finds what is said in a segment: by word times, or by the text where a segment is a whole utterance.

    utterances: with texts, and with word times where there are some
    alphabet: the characters that count; see `alphabet_of`
    """

    def __init__(self, utterances: Sequence[Utterance], sampling_rate: int, alphabet: str) -> None:
        self._utterances: Mapping[str, Utterance] = {utterance.id: utterance for utterance in utterances}
        self._rate = sampling_rate
        self._numbers = {character: number for number, character in enumerate(alphabet)}

    def label(self, identity: str, start: int, length: int, total: int) -> SegmentLabels:
        """Label samples [start, start + length) of an utterance of `total` samples.

        With word times, the words that lie inside count. Their stretch reaches from the end of the word before them (or
        the segment's beginning) to the start of the word after them (or the segment's end). Nothing is known where one
        of these words has no times. Without times, only a segment that is the whole utterance has labels.
        """
        utterance = self._utterances[identity]
        if utterance.words is not None:
            return self._of_words(utterance.words, start, length)
        if utterance.text is not None and start == 0 and length >= total:
            return SegmentLabels(self._encode(utterance.text), 0, length)
        return _nothing()

    def said(self, identity: str, samples: np.ndarray) -> np.ndarray:
        """The number of the character that is said at each of ascending (places,) samples of an utterance.

        The characters of a word share its time evenly, and between words there is a space. -1 where nothing is known:
        in recordings whose words have no times, and where a word could not be placed.
        """
        places = np.full(len(samples), -1)
        words = self._utterances[identity].words
        if words is None:
            return places
        # the time between known instants: its ends in samples, and the characters that are said until then
        ends, pieces = [], []
        silence, unknown = np.array([self._numbers[" "]]), np.array([-1])
        behind_unplaced = False
        for word in words:
            if word.start is None or word.end is None:
                behind_unplaced = True
                continue
            ends.append(word.start * self._rate)
            pieces.append(unknown if behind_unplaced else silence)
            behind_unplaced = False
            ends.append(word.end * self._rate)
            pieces.append(self._encode(word.word))
        ends.append(np.inf)
        pieces.append(unknown if behind_unplaced else silence)
        number = np.searchsorted(ends, samples, side="right")
        begins = np.array([0.0, *ends[:-1]])
        for piece in np.unique(number):
            characters, here = pieces[piece], number == piece
            share = (samples[here] - begins[piece]) / (ends[piece] - begins[piece])
            if len(characters):
                places[here] = characters[
                    np.minimum((share * len(characters)).astype(int), len(characters) - 1)
                ]
        return places

    def _of_words(self, words: Sequence[Word], start: int, length: int) -> SegmentLabels:
        begins = [None if word.start is None else round(word.start * self._rate) - start for word in words]
        ends = [None if word.end is None else round(word.end * self._rate) - start for word in words]
        inside = [
            number
            for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
            if begin is not None and end is not None and begin >= 0 and end <= length
        ]
        if not inside:
            return _nothing()
        first, last = inside[0], inside[-1]
        # Words without times are among these, or at an edge where they may be said inside the stretch.
        around = words[max(0, first - 1) : last + 2]
        if len(inside) != last - first + 1 or not all(word.placed for word in around):
            return _nothing()
        before = ends[first - 1] if first else 0
        behind = begins[last + 1] if last + 1 < len(words) else length
        assert before is not None and behind is not None
        text = " ".join(word.word for word in words[first : last + 1])
        return SegmentLabels(self._encode(text), max(0, before), min(length, behind))

    def _encode(self, text: str) -> np.ndarray:
        spaced = " ".join(text.lower().split())
        return np.array([self._numbers[c] for c in spaced if c in self._numbers], dtype=np.int64)


def alphabet_of(utterances: Sequence[Utterance]) -> str:
    """The characters of the texts that are spoken, in order: letters in lower case, digits, apostrophe, space."""
    characters = {c for utterance in utterances for c in (utterance.text or "").lower()}
    return "".join(sorted({c for c in characters if c.isalnum() or c == "'"} | {" "}))


def _padded(audio: Tensor, samples: int) -> Tensor:
    return torch.nn.functional.pad(audio, (0, samples - len(audio)))


def _nothing() -> SegmentLabels:
    return SegmentLabels(np.zeros(0, dtype=np.int64), 0, 0)
