"""WAV streams: for pipes, and for responses that begin before all of the speech is made."""

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable

from torch import Tensor

_UNKNOWN = 0xFFFFFFFF  # what players take as "until the stream ends"


def wav_header(sampling_rate: int, samples: int | None = None) -> bytes:
    """The first 44 bytes of a mono WAV of 16 bits; without `samples`, of one that goes on until it ends."""
    size = _UNKNOWN if samples is None else 2 * samples
    whole = _UNKNOWN if samples is None else 36 + size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sampling_rate, 2 * sampling_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def pcm16(waveform: Tensor) -> bytes:
    """(samples,) as 16-bit little-endian samples; what lies outside [-1, 1] is clipped."""
    scaled = (waveform.detach().cpu().float().clamp(-1.0, 1.0) * 32_767.0).round()
    return scaled.numpy().astype("<i2").tobytes()


def wav_bytes(waveform: Tensor, sampling_rate: int) -> bytes:
    """A whole WAV file of a waveform (samples,)."""
    return wav_header(sampling_rate, len(waveform)) + pcm16(waveform)


class WavBroadcast:
    """A growing WAV: one thread writes it, any number of listeners hear it from its beginning.

    The writer does not wait for its listeners: a slow one holds nobody up.
    """

    def __init__(self, sampling_rate: int) -> None:
        self._pieces = [wav_header(sampling_rate)]
        self._changed = threading.Condition()
        self._over = False
        self._stopped = False
        self._wakers: list[Callable[[], None]] = []

    @property
    def stopped(self) -> bool:
        """Whether a listener asked to stop."""
        return self._stopped

    def add(self, piece: bytes) -> None:
        """Append samples."""
        with self._changed:
            self._pieces.append(piece)
            self._wake()

    def close(self) -> None:
        """Mark the end."""
        with self._changed:
            self._over = True
            self._wake()

    def stop(self) -> None:
        """Ask the writer to end with the next chunk."""
        self._stopped = True

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    async def listen(self) -> AsyncIterator[bytes]:
        """The WAV from its beginning; yields each piece as soon as it is written."""
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
