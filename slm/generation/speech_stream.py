"""Speech that leaves while it is being made: audio as soon as the codec's decoder can settle it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codec.streaming_codec import ChunkedDecoder, StreamingDecoder
from slm.generation.grammar import SpeakingRow
from slm.generation.speaking import Passage
from slm.generation.spoken import SpeakingProgress, SpokenSpan, said_cuts, spans_of
from slm.vocabulary import Vocabulary

# Frames that are decoded together: few at first, so that audio leaves soon, then more, which costs less.
_CHUNKS = (6, 6, 12, 24)


@dataclass(frozen=True)
class SpeechChunk:
    """The next piece of speech."""

    audio: Tensor  # (samples,) float32
    spans: list[SpokenSpan]  # those whose generation ended since the chunk before; times in the whole stream
    progress: SpeakingProgress


Speaker = Callable[[Passage], Iterator[SpeakingRow]]


class SpeechStream:
    """Iterate over it once for the chunks; afterwards it says how it went.

    Time is counted only while it works, not while whoever takes the chunks does something else.

    Attributes:
        sampling_rate: of the audio, Hz.
        total_words: of the text.
        cuts, ended: as in `SpokenResult`.
        first_audio_seconds: from the request to the first chunk.
        seconds: of audio that has left.
        working_seconds: time that took.
        smallest_lead: by how much the audio that had left was ahead of a listener who began with the first chunk, at
            the worst moment, in seconds; below 0 there was a gap.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        total_words: int,
        speak: Speaker,
        decoder: StreamingDecoder | ChunkedDecoder,
        vocabulary: Vocabulary,
        requested: float,
    ) -> None:
        self._passages, self._speak, self._decoder, self._vocabulary = passages, speak, decoder, vocabulary
        self.total_words = total_words
        self.sampling_rate = vocabulary.codec.sampling_rate
        self.cuts: list[str] = []
        self.ended = True
        self.seconds = 0.0
        self.first_audio_seconds = float("inf")
        self.smallest_lead = float("inf")
        self.working_seconds = time.perf_counter() - requested
        self._codes: list[np.ndarray] = []  # (frames, num_quantizers) each, as they were decoded
        self._words = 0

    @property
    def codes(self) -> Tensor:
        """What was decoded so far, (num_quantizers, frames) int64."""
        size = self._vocabulary.num_quantizers
        joined = np.concatenate([np.zeros((0, size), dtype=np.int64), *self._codes])
        return torch.from_numpy(joined.T.copy())

    @property
    def real_time_factor(self) -> float:
        """Time it took per second of audio: below 1 is faster than real time."""
        return self.working_seconds / self.seconds if self.seconds else float("inf")

    def __iter__(self) -> Iterator[SpeechChunk]:
        chunks = self._chunks()
        while True:
            started = time.perf_counter()
            chunk = next(chunks, None)
            self.working_seconds += time.perf_counter() - started
            if chunk is None:
                return
            if self.seconds:
                late = self.working_seconds - self.first_audio_seconds
                self.smallest_lead = min(self.smallest_lead, self.seconds - late)
            elif len(chunk.audio):
                self.first_audio_seconds = self.working_seconds
            self.seconds += len(chunk.audio) / self.sampling_rate
            yield chunk

    def _chunks(self) -> Iterator[SpeechChunk]:
        frame_rate, size = self._vocabulary.codec.frame_rate, self._vocabulary.num_quantizers
        frames_before = number = 0  # frames of earlier passages, chunks so far
        tells_spans = sum(len(passage.texts) for passage in self._passages) > 1
        for passage in self._passages:
            told = words = 0  # spans told of, words in them
            row = None
            for row in self._speak(passage):
                ready = len(row.drawn) // size - row.kept_frames
                if not row.done and ready < _CHUNKS[min(number, len(_CHUNKS) - 1)]:
                    continue
                audio = self._decode(row, ready)
                row.kept_frames += ready
                number += 1
                over = len(row.span_frames) - (0 if row.done else 1)
                spans = spans_of(row, passage.texts, frames_before / frame_rate, frame_rate)[told:over]
                words += sum(len(text.split()) for text in passage.texts[told:over])
                told = over
                progress = SpeakingProgress(
                    self._words + words, self.total_words, (frames_before + row.kept_frames) / frame_rate
                )
                yield SpeechChunk(audio, spans if tells_spans else [], progress)
            assert row is not None
            frames_before += row.kept_frames
            self._words += words
            self.cuts += said_cuts(row, passage.texts)
            self.ended = self.ended and row.cut is None
        last = SpeakingProgress(self._words, self.total_words, frames_before / frame_rate)
        yield SpeechChunk(self._decoder.finish()[0].float().cpu(), [], last)

    def _decode(self, row: SpeakingRow, frames: int) -> Tensor:
        size = self._vocabulary.num_quantizers
        start = row.kept_frames * size
        ids = np.asarray(row.drawn[start : start + frames * size], dtype=np.int64)
        codes = self._vocabulary.ids_to_codes(ids).astype(np.int64).reshape(-1, size)  # (frames, quantizers)
        self._codes.append(codes)
        return self._decoder.push(torch.from_numpy(codes.T.copy())[None])[0].float().cpu()
