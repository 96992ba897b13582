"""Work in order: texts are said together when several wait; other work waits for a slot."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from torch import Tensor

from recipes.apps.config import ServiceLimits
from recipes.apps.serve.metrics import ServiceMetrics
from recipes.apps.serve.middleware import RequestError
from slm import SpeechLM, SpeechStream
from slm.generation.results import SpeechPiece

_MOST_TOGETHER = 32  # texts
_GATHERING_SECONDS = 0.01  # a batch begins when so long nobody new has come


class RequestQueue:
    """Works on `limits.concurrent` requests at once; `limits.waiting` more may wait, others get a 503."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.concurrent)
        self.waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot for as long as the block takes. Raises RequestError."""
        if self._slots.locked() and self.waiting >= self._limits.waiting:
            raise too_many()
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._slots.release()


def too_many() -> RequestError:
    """What is answered when the queue is full."""
    return RequestError(503, "too many requests are waiting: try again in a moment")


class Speech:
    """A text that is being said: iterate for its audio, (samples,) each, as it is made.

    Whoever makes it does not wait for who listens. It ends early when nobody listens any more.
    """

    def __init__(self, stream: SpeechStream, metrics: ServiceMetrics) -> None:
        self.stream, self.is_left = stream, False
        self._metrics, self._asked = metrics, time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._audio: asyncio.Queue[Tensor | Exception | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Tensor]:
        try:
            while (audio := await self._audio.get()) is not None:
                if isinstance(audio, Exception):
                    raise audio
                yield audio
        finally:
            self.is_left = True

    def decode(self, piece: SpeechPiece | None) -> None:
        """Hand out the audio of the next piece; None: of the end."""
        try:
            audio = (self.stream.finish() if piece is None else self.stream.decode(piece)).audio
        except Exception as error:
            self.put(error)
            return
        if len(audio):
            if self._asked:
                self._metrics.first_audio.observe(time.perf_counter() - self._asked)
                self._asked = 0.0
            self.put(audio)
        if piece is None:
            self.put(None)

    def put(self, audio: Tensor | Exception | None) -> None:
        """Hand out audio, or why there is no more of it."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._audio.put_nowait, audio)


class SpeechEngine:
    """Says texts, passage by passage; texts that wait at the same time are generated together.

    One thread generates, another decodes. `limits.concurrent` batches take turns, step by step, so that a text does not
    wait for the end of those before it.
    """

    def __init__(self, speaker: SpeechLM, limits: ServiceLimits, metrics: ServiceMetrics) -> None:
        self._speaker, self._limits, self._metrics = speaker, limits, metrics
        self._lock = threading.Lock()
        self._new: list[Speech] = []
        self._begun: list[Speech] = []  # whose next passage can be generated
        self._generating = ThreadPoolExecutor(1, "generating")
        self._decoding = ThreadPoolExecutor(1, "decoding")

    @property
    def waiting(self) -> int:
        """Texts that nobody works on yet."""
        return len(self._new)

    def say(self, stream: SpeechStream) -> Speech:
        """Begin to say a text, from the event loop. Raises RequestError."""
        if self.waiting > self._limits.waiting:
            raise too_many()
        speech = Speech(stream, self._metrics)
        with self._lock:
            self._new.append(speech)
        self._generating.submit(self._work)
        return speech

    def _work(self) -> None:
        """Generate until nothing waits any more."""
        batches: list[Iterator[None]] = []
        while True:
            if len(batches) < self._limits.concurrent:
                self._gather()
                if batch := self._next_batch():
                    batches.append(self._generated(batch))
            if not batches:
                return
            batches = [batch for batch in batches if next(batch, "over") is None]

    def _gather(self) -> None:
        """Wait until nobody new comes: requests that come at the same moment share a batch."""
        known = 0
        while self.waiting > known:
            known = self.waiting
            time.sleep(_GATHERING_SECONDS)

    def _next_batch(self) -> list[Speech]:
        with self._lock:
            there = self._begun + self._new
            batch = [speech for speech in there if speech.stream.sampling == there[0].stream.sampling]
            batch = batch[:_MOST_TOGETHER]
            self._begun = [speech for speech in self._begun if speech not in batch]
            self._new = [speech for speech in self._new if speech not in batch]
        return batch

    def _generated(self, batch: list[Speech]) -> Iterator[None]:
        """Generate a passage of each text, a step at a time."""
        going = {speech.stream: speech for speech in batch}
        try:
            for pieces in self._speaker.speak_on(list(going)):
                for stream, piece in pieces:
                    speech = going[stream]
                    self._decoding.submit(speech.decode, piece)
                    if stream.row is None:
                        del going[stream]
                        if stream.is_over:
                            self._decoding.submit(speech.decode, None)
                        else:
                            self._begun.append(speech)
                for stream, speech in going.items():
                    if speech.is_left:
                        stream.stop()
                yield
        except Exception as error:
            for speech in going.values():
                speech.put(error)
