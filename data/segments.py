"""Segments of waveforms for codec training: which one is a pure function of (seed, index)."""

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.foundation import UserError, generator
from data.audio import AudioError
from data.corpora import Utterance
from data.segment_labels import Labeller
from data.waveforms import FileWaveforms, MemoryWaveforms, Waveforms

# A broken stretch of a file is passed over by drawing again; this many in a row mean that the corpus is
# broken.
_ATTEMPTS = 20


class Segment(TypedDict):
    """One training example."""

    waveform: Tensor  # (segment_samples,) float32, zeros beyond `length`
    length: int  # samples that are audio
    utterance: int  # where it came from: index into `SegmentDataset.waveforms`
    start: int  # and its first sample there
    labels: NotRequired[Tensor]  # (characters,) int64 of what is said in it, with a labeller
    span: NotRequired[Tensor]  # (2,) int64 first sample and end of the stretch in which exactly that is said


class SegmentDataset(Dataset[Segment]):
    """Random segments of a corpus, their level drawn at random, speakers balanced.

    Index i always gives the same segment, in any process and order, so a run resumes by counting; any i >=
    0 is valid. `len()` is how many segments hold as much audio as the corpus.

    utterances: what to cut from, or `Waveforms` that are open already
    segment_samples: length of a segment; shorter utterances are padded with zeros at the end
    gain_db: range of the peak level to scale to, in dB of full scale; None leaves levels as recorded
    gain_of: whose peak is scaled: the "utterance"'s, as a codec meets it later, or the "segment"'s, which
    spares
        reading the whole utterance from its file
    max_gain_db: near-silence is not amplified by more than this
    speaker_balance: 0 draws speakers as often as they speak in the corpus, 1 all equally often
    preload: decode everything into memory first
    labeller: says what is said in a segment; without one, segments come without labels

    Raises UserError when nothing can be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance] | Waveforms,
        sampling_rate: int,
        segment_samples: int,
        seed: int = 0,
        gain_db: tuple[float, float] | None = (-6.0, -1.0),
        gain_of: Literal["utterance", "segment"] = "utterance",
        max_gain_db: float = 40.0,
        speaker_balance: float = 1.0,
        preload: bool = False,
        labeller: Labeller | None = None,
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
        self.gain_db, self.gain_of, self.max_gain_db = gain_db, gain_of, max_gain_db
        self.labeller = labeller
        weights = sampling_weights(self.waveforms.lengths, self.waveforms.speakers, speaker_balance)
        self._cumulative = np.cumsum(weights)

    def __len__(self) -> int:
        return max(1, int(self.waveforms.lengths.sum()) // self.segment_samples)

    def __getitem__(self, index: int) -> Segment:
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                return self._draw(generator(self.seed, "segment", index, attempt))
            except AudioError as error:
                reason = str(error)
        raise UserError(f"{_ATTEMPTS} recordings in a row cannot be read (the last: {reason})")

    def _draw(self, random: np.random.Generator) -> Segment:
        utterance = int(
            np.searchsorted(self._cumulative, random.random() * self._cumulative[-1], side="right")
        )
        total = int(self.waveforms.lengths[utterance])
        start = int(random.integers(0, max(0, total - self.segment_samples) + 1))
        audio = self.waveforms.read(utterance, start, self.segment_samples)
        if self.gain_db is not None:
            level = 10.0 ** (random.uniform(*self.gain_db) / 20.0)
            peak = self.waveforms.peak(utterance) if self.gain_of == "utterance" else float(audio.abs().max())
            audio = audio * min(level / max(peak, 1e-9), 10.0 ** (self.max_gain_db / 20.0))
        waveform = torch.zeros(self.segment_samples)
        waveform[: len(audio)] = audio
        segment: Segment = {
            "waveform": waveform,
            "length": len(audio),
            "utterance": utterance,
            "start": start,
        }
        if self.labeller is not None:
            said = self.labeller.label(self.waveforms.ids[utterance], start, len(audio), total)
            segment["labels"] = torch.from_numpy(said.characters)
            segment["span"] = torch.tensor([said.start, said.end])
        return segment


def sampling_weights(
    lengths: np.ndarray, speakers: Sequence[str | None], speaker_balance: float
) -> np.ndarray:
    """Weight of each utterance (utterances,), summing to 1: within a speaker in proportion to its length.

    A speaker's share is (seconds spoken) ** (1 - speaker_balance), normalised; utterances of unknown
    speaker count as one speaker's.
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
