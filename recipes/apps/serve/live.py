"""Speech between who makes it and who listens: made in a thread, heard by any number of listeners, from the start."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from recipes.apps.wav_stream import pcm16, wav_header
from slm import SpeechStream


class LiveSpeech:
    """A WAV that grows. Making it does not wait for its listeners: a slow one holds nobody up."""

    def __init__(self, sampling_rate: int) -> None:
        self._pieces = [wav_header(sampling_rate)]
        self._changed = threading.Condition()
        self._over = False
        self._stopped = False
        self._wakers: list[Callable[[], None]] = []

    @property
    def stopped(self) -> bool:
        """Whether somebody asked for no more."""
        return self._stopped

    def fill(self, stream: SpeechStream) -> None:
        """Take all of a stream, until it ends or `stop` is called."""
        try:
            for chunk in stream:
                if self.stopped:
                    return
                self.add(pcm16(chunk.audio))
        finally:
            self.close()

    def add(self, piece: bytes) -> None:
        """The next samples."""
        with self._changed:
            self._pieces.append(piece)
            self._wake()

    def close(self) -> None:
        """There is no more."""
        with self._changed:
            self._over = True
            self._wake()

    def stop(self) -> None:
        """No more is wanted: whoever makes it ends with the next chunk."""
        self._stopped = True

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    async def listen(self) -> AsyncIterator[bytes]:
        """The WAV from its beginning, each piece as soon as it is there."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(news.set)

        with self._changed:
            self._wakers.append(wake)
        heard = 0
        try:
            while True:
                news.clear()
                with self._changed:
                    pieces, over = self._pieces[heard:], self._over
                for piece in pieces:
                    yield piece
                heard += len(pieces)
                if over:
                    return
                await news.wait()
        finally:
            with self._changed:
                self._wakers.remove(wake)
