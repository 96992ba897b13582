"""Random access to the waveforms of a corpus: in its files, or decoded once and kept in memory."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from codec.foundation import Progress, UserError
from data.audio import audio_info, read_audio, read_blocks, read_segment
from data.corpora.utterance import Utterance
from data.decoding import AudioError

_T = TypeVar("_T")
_FULL_SCALE = 32768
_BLOCK_SECONDS = 10.0  # decoded at a time to find a peak


class Waveforms(Protocol):
    """Mono waveforms at one rate that can be read in parts."""

    @property
    def sampling_rate(self) -> int: ...

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def speakers(self) -> Sequence[str | None]: ...

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each utterance, (utterances,) int64."""
        ...

    def read(self, index: int, start: int, count: int) -> Tensor:
        """Samples [start, start + count) as float32 (samples,), fewer at the end. Raises AudioError."""
        ...

    def peak(self, index: int) -> float:
        """The largest absolute sample of an utterance. Raises AudioError."""
        ...


class FileWaveforms:
    """Reads just the needed part of a file on every access; keeps only lengths and known peaks.

    Files whose header cannot be read are skipped; `failures` says why.
    """

    def __init__(self, utterances: Sequence[Utterance], sampling_rate: int) -> None:
        def length(utterance: Utterance) -> int:
            return audio_info(utterance.path).samples(sampling_rate)

        found, self.failures = _each(utterances, length)
        usable = [(utterance, samples) for utterance, samples in found if samples > 0]
        self.sampling_rate = sampling_rate
        self.ids = [utterance.id for utterance, _ in usable]
        self.speakers = [utterance.speaker for utterance, _ in usable]
        self.lengths = np.array([samples for _, samples in usable], dtype=np.int64)
        self._sources = [utterance.path for utterance, _ in usable]
        # In shared memory, so that the workers of a loader find each peak once together.
        self._peaks = torch.full((len(usable),), torch.nan).share_memory_()

    def read(self, index: int, start: int, count: int) -> Tensor:
        return read_segment(self._sources[index], self.sampling_rate, start, count)

    def peak(self, index: int) -> float:
        """Decodes the utterance once, block by block, in whichever process asks for it first."""
        if self._peaks[index].isnan():
            blocks = read_blocks(self._sources[index], self.sampling_rate, _BLOCK_SECONDS)
            self._peaks[index] = max((_peak(block) for block in blocks), default=0.0)
        return float(self._peaks[index])


class MemoryWaveforms:
    """All waveforms as one int16 array: 3 hours at 24 kHz take 0.5 GB, and training never touches a file."""

    def __init__(
        self,
        samples: Tensor,  # (all samples,) int16
        offsets: np.ndarray,  # (utterances + 1,) int64
        sampling_rate: int,
        ids: Sequence[str],
        speakers: Sequence[str | None],
    ) -> None:
        self.sampling_rate = sampling_rate
        self.ids, self.speakers = ids, speakers
        self.lengths = np.diff(offsets)
        self.failures: list[tuple[str, str]] = []
        self._samples, self._offsets = samples, offsets
        self._peaks = [_peak(self._whole(index)) for index in range(len(ids))]

    @classmethod
    def preload(
        cls, utterances: Sequence[Utterance], sampling_rate: int, threads: int = 2
    ) -> "MemoryWaveforms":
        """Decode everything. Broken files are skipped and listed in `failures` with the reason."""
        with Progress(total=len(utterances), unit="files", label="reading audio") as progress:

            def decode(utterance: Utterance) -> Tensor:
                waveform = read_audio(utterance.path, sampling_rate)
                # Resampling overshoots full scale now and then, by a little.
                return (waveform * _FULL_SCALE).round_().clamp_(-_FULL_SCALE, _FULL_SCALE - 1).to(torch.int16)

            found, failures = _each(utterances, decode, threads, lambda: progress.update(1))
        offsets = np.cumsum([0, *(len(waveform) for _, waveform in found)], dtype=np.int64)
        samples = torch.empty(int(offsets[-1]), dtype=torch.int16)
        for index, (_, waveform) in enumerate(found):
            samples[offsets[index] : offsets[index + 1]] = waveform
        whole = cls(samples, offsets, sampling_rate, [u.id for u, _ in found], [u.speaker for u, _ in found])
        whole.failures = failures
        return whole

    def read(self, index: int, start: int, count: int) -> Tensor:
        stop = min(start + count, int(self.lengths[index]))
        begin = int(self._offsets[index])
        return self._samples[begin + start : begin + max(start, stop)].float() / _FULL_SCALE

    def peak(self, index: int) -> float:
        return self._peaks[index]

    def _whole(self, index: int) -> Tensor:
        return self.read(index, 0, int(self.lengths[index]))


def _each(
    utterances: Iterable[Utterance],
    read: Callable[[Utterance], _T],
    threads: int = 8,
    done: Callable[[], object] = lambda: None,
) -> tuple[list[tuple[Utterance, _T]], list[tuple[str, str]]]:
    """What `read` gives for each utterance, in order; and the ids of those that failed, with the reason."""
    found: list[tuple[Utterance, _T]] = []
    failures: list[tuple[str, str]] = []

    def attempt(utterance: Utterance) -> tuple[Utterance, _T | None, str]:
        try:
            return utterance, read(utterance), ""
        except AudioError as error:
            return utterance, None, str(error)

    with ThreadPoolExecutor(threads) as pool:  # libsndfile and torch work outside Python's lock
        for utterance, result, reason in pool.map(attempt, utterances):
            done()
            if result is None:
                failures.append((utterance.id, reason))
            else:
                found.append((utterance, result))
    if not found:
        first = f" (the first: {failures[0][1]})" if failures else ""
        raise UserError(f"none of {len(failures)} recordings can be read{first}")
    return found, failures


def _peak(waveform: Tensor) -> float:
    return float(waveform.abs().max()) if len(waveform) else 0.0
