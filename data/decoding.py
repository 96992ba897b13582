"""Opening audio: a file, a part of one, or what a dataset's row holds, as mono samples at their own rate.

libsndfile decodes. What it reads wrongly (see `data.containers`) is mended here, and what it cannot read (AAC in MP4,
WebM, WMA and the like) is decoded by the program ffmpeg, where it is installed.
"""

import io
import math
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Protocol

import fsspec
import soundfile
import torch
from torch import Tensor

from codec.foundation import UserError, first_line
from data.containers import mpeg_extent, ogg_links, wrong_length

# One read fills at most this many values over all channels: 4 MiB of float32.
_VALUES_PER_READ = 2**20
# Float files hold about [-1, 1], or a little more; values far outside are integers written as floats.
_LOUDEST = 64.0
_RATES = (1_000, 1_000_000)
# libsndfile answers with the largest count where the header does not say how long the file is.
_UNKNOWN_FRAMES = 2**62
# The average of channels this much weaker than they are (-40 dB): they are one sound with opposite polarity.
_CANCELLED = 1e-4
_TOLERANCE = 0.1  # seconds by which the times of a part may be off

_FFMPEG_MAGIC = (
    b"\x1aE\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR", b"\xff\xf1", b"\xff\xf9", b"MAC ", b"wvpk", b"TTA1", b"\x0bw",
    b"OggS",
)  # fmt: skip


class AudioError(UserError):
    """One line that names an audio source and says what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # names may hold line breaks


class AudioObject(Protocol):
    """Audio that is not a file of its own, such as a row of a Hugging Face dataset; `str()` names it."""

    def open_audio(self) -> BinaryIO:
        """A seekable stream of an encoded audio file."""
        ...


@dataclass(frozen=True, slots=True)
class AudioPart:
    """A stretch of a recording, one of its channels, or both.

    A recording that is as long as the stretch is the stretch already: its times are those in a longer one.
    """

    source: "str | os.PathLike[str] | AudioObject"
    start: float = 0.0  # seconds
    seconds: float | None = None  # None: to the end
    channel: int | None = None  # from 0; None: the average of all

    def __str__(self) -> str:
        if self.start == 0 and self.seconds is None:
            return str(self.source)
        end = "the end" if self.seconds is None else f"{self.start + self.seconds:g} s"
        return f"{self.source}, {self.start:g} s to {end}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """Stands for the audio of a row that cannot be used: opening it raises AudioError."""

    reason: str

    def __str__(self) -> str:
        return self.reason

    def open_audio(self) -> BinaryIO:
        raise AudioError(self.reason)


@dataclass(frozen=True, slots=True)
class RemoteAudio:
    """A file that fsspec opens (`s3://`, `https://`, `memory://`); only the parts that are needed are fetched."""

    address: str

    def __str__(self) -> str:
        return self.address

    def open_audio(self) -> BinaryIO:
        try:
            return fsspec.open(self.address, "rb").open()
        except (OSError, ImportError, ValueError) as error:
            raise AudioError(f"{printable(self.address)}: cannot be opened ({first_line(error)})") from None


AudioSource = str | os.PathLike[str] | AudioObject | AudioPart


class Recording:
    """An open source. Raises AudioError where it cannot be opened or read.

    sampling_rate, channels: of the file
    frames: samples a channel; None where only decoding tells
    """

    def __init__(self, source: AudioSource) -> None:
        part = source if isinstance(source, AudioPart) else AudioPart(source)
        self.name = printable(str(source))
        self._channel = part.channel
        self._files = _opened(part.source, printable(str(part.source)))
        first = self._files[0].file
        self.sampling_rate, self.channels = first.samplerate, first.channels
        self._format, self._subtype = first.format, first.subtype
        totals = [opened.frames for opened in self._files]
        known = [frames for frames in totals if frames is not None]
        self.frames = sum(known) if len(known) == len(totals) else None
        self._begin = 0
        self._at = 0  # the file that is being read
        try:
            self._check()
            if part.start or part.seconds is not None:
                self._cut(part.start, part.seconds)
        except AudioError:
            self.close()
            raise

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for opened in self._files:
            opened.file.close()

    def parts(self) -> Iterator[Tensor]:
        """All samples (samples,) in parts; checks that there are any, and as many as the header promises."""
        promised, taken = self.frames, 0
        if self._begin:
            self._seek(self._begin)
        energy = torch.zeros(2, dtype=torch.float64)  # of the average, and of the channels
        most = max(1, _VALUES_PER_READ // self.channels)
        while promised is None or taken < promised:
            part = self._read(most if promised is None else min(most, promised - taken), taken, energy)
            if len(part) == 0:
                break
            taken += len(part)
            yield part
        if promised is not None and taken < promised:
            raise AudioError(
                f"{self.name}: truncated: its header promises {promised / self.sampling_rate:.2f} s, "
                f"it holds {taken / self.sampling_rate:.2f} s"
            )
        if taken == 0:
            raise AudioError(f"{self.name}: holds no samples")
        self._check_polarity(energy)

    def _check_polarity(self, energy: Tensor) -> None:
        if energy[0] < _CANCELLED * energy[1]:
            raise AudioError(
                f"{self.name}: its channels cancel out (opposite polarity): choose one of them with --channel"
            )

    def range(self, start: int, stop: int) -> Tensor:
        """Samples [start, stop)."""
        if stop <= start:
            return torch.zeros(0)
        self._seek(self._begin + start)
        pieces, taken, energy = [], 0, torch.zeros(2, dtype=torch.float64)
        while taken < stop - start:
            part = self._read(stop - start - taken, start + taken, energy)
            if len(part) == 0:
                assert self.frames is not None
                promised = self.frames / self.sampling_rate
                raise AudioError(f"{self.name}: truncated: it ends before the {promised:.2f} s promised")
            pieces.append(part)
            taken += len(part)
        self._check_polarity(energy)
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def _check(self) -> None:
        rate = self.sampling_rate
        if not _RATES[0] <= rate <= _RATES[1]:
            raise AudioError(
                f"{self.name}: a sampling rate of {rate} Hz is outside {_RATES[0]} to {_RATES[1]} Hz"
            )
        for opened in self._files:
            if (opened.file.samplerate, opened.file.channels) != (rate, self.channels):
                raise AudioError(f"{self.name}: is joined from parts of different rates or channels")
        if self._channel is not None and not 0 <= self._channel < self.channels:
            raise AudioError(
                f"{self.name}: has {self.channels} channels, no channel {self._channel} (from 0)"
            )

    def _cut(self, start: float, seconds: float | None) -> None:
        rate = self.sampling_rate
        if self.frames is None:
            self.frames = sum(len(part) for part in self.parts())
            self._seek(0)
        if seconds is not None and abs(self.frames / rate - seconds) < _TOLERANCE:
            return
        begin = round(min(start * rate, _UNKNOWN_FRAMES))
        end = self.frames if seconds is None else round(min((start + seconds) * rate, _UNKNOWN_FRAMES))
        if end <= begin or begin >= self.frames or end > self.frames + _TOLERANCE * rate:
            raise AudioError(f"{self.name}: the recording lasts {self.frames / rate:.2f} s")
        self._begin, self.frames = begin, min(end, self.frames) - begin

    def _seek(self, frame: int) -> None:
        self._at = 0
        try:
            for opened in self._files:
                inside = frame if opened.frames is None else min(frame, opened.frames)
                if self._format == "MP3":
                    # A seek lands only near the place, and loses the bits that earlier frames keep for later ones.
                    for position in range(0, inside, _VALUES_PER_READ):
                        opened.file.read(min(_VALUES_PER_READ, inside - position), dtype="float32")
                else:
                    opened.file.seek(inside)
                frame -= inside
        except soundfile.SoundFileError as error:
            where = f"{frame / self.sampling_rate:.2f} s"
            raise AudioError(f"{self.name}: broken at {where} ({sndfile_reason(error)})") from None

    def _read(self, frames: int, position: int, energy: Tensor | None = None) -> Tensor:
        """The next frames as a mono waveform, fewer at the end; `position` is where they begin, for the message."""
        try:
            while True:
                values = self._files[self._at].file.read(frames, dtype="float32", always_2d=True)
                if len(values) or self._at + 1 == len(self._files):
                    break
                self._at += 1
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{self.name}: truncated or broken somewhere after {position / self.sampling_rate:.2f} s "
                f"({sndfile_reason(error)})"
            ) from None
        if self._channel is not None:
            values = values[:, self._channel : self._channel + 1]
        mono = torch.from_numpy(
            values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)
        )  # the channels' average
        # The sum is NaN or infinite if any sample is: one pass, and a second only to say where.
        if len(mono) and not math.isfinite(float(mono.sum())) and not bool(torch.isfinite(mono).all()):
            where = (position + int((~torch.isfinite(mono)).nonzero()[0])) / self.sampling_rate
            raise AudioError(f"{self.name}: holds NaN or infinite samples (the first at {where:.3f} s)")
        if len(mono) and self._subtype in ("FLOAT", "DOUBLE"):
            peak = float(mono.abs().max())
            if peak > _LOUDEST:
                raise AudioError(
                    f"{self.name}: float samples as large as {peak:.0f}: divide them by their full scale"
                )
        if energy is not None and values.shape[1] > 1:
            energy += torch.tensor(
                [float(mono.square().sum()), float((values * values).sum()) / values.shape[1]]
            )
        return mono


class SequentialSoundFile(soundfile.SoundFile):
    """soundfile's class, kept from seeking to where it is after every read.

    Seeking costs time. In an MP3 it lands only near the place, which garbles every read but the first.
    """

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file, or a link of a chained one, and its samples a channel where they are known."""

    file: SequentialSoundFile
    frames: int | None


def _opened(source: "str | os.PathLike[str] | AudioObject", name: str) -> list[_Opened]:
    if isinstance(source, str | os.PathLike):
        _check_path(source, name)
    try:
        file = SequentialSoundFile(
            os.fsencode(source) if isinstance(source, str | os.PathLike) else _raw(source)
        )
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        file = _by_ffmpeg(source, name, sndfile_reason(error))
    frames = file.frames if 0 <= file.frames < _UNKNOWN_FRAMES else None
    if file.format not in ("MP3", "OGG", "WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF"):
        return [_Opened(file, frames)]
    raw = _raw(source)
    with suppress(OSError):
        size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        if file.format == "MP3":
            extent = mpeg_extent(raw, file.frames)
            if extent is not None:
                file.close()
                longer = _Longer(raw, extent[0], size - extent[0])
                return [_Opened(SequentialSoundFile(longer), extent[1])]
        elif file.format == "OGG":
            links, truncated = ogg_links(raw, size)
            if truncated:
                file.close()
                raise AudioError(f"{name}: truncated: its last page is not whole")
            if len(links) > 1:
                file.close()
                parts = [SequentialSoundFile(_buffered(ByteRange(_raw(source), *link))) for link in links]
                return [_Opened(part, part.frames) for part in parts]
        elif wrong := wrong_length(raw, size):
            file.close()
            cut = "truncated: " if wrong == "more" else ""
            raise AudioError(f"{name}: {cut}its header promises {wrong} than it holds")
        else:
            with suppress(soundfile.SoundFileError):  # of what cannot seek
                file.seek(0)  # for some streams share their position with `raw`
    raw.close()
    return [_Opened(file, frames)]


def _check_path(path: "str | os.PathLike[str]", name: str) -> None:
    try:
        about = os.stat(path)
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened ({getattr(error, 'strerror', error)})") from None
    if stat.S_ISDIR(about.st_mode):
        raise AudioError(f"{name}: is a directory, not an audio file")
    if not stat.S_ISREG(about.st_mode):
        raise AudioError(f"{name}: is not a regular file")
    if about.st_size == 0:
        raise AudioError(f"{name}: is empty (0 bytes)")


def _raw(source: "str | os.PathLike[str] | AudioObject") -> BinaryIO:
    return open(source, "rb") if isinstance(source, str | os.PathLike) else source.open_audio()


@lru_cache(maxsize=1)
def ffmpeg_program() -> str | None:
    """Where ffmpeg is installed."""
    return shutil.which("ffmpeg")


def _by_ffmpeg(source: "str | os.PathLike[str] | AudioObject", name: str, reason: str) -> SequentialSoundFile:
    """What ffmpeg decodes of a file that libsndfile refuses."""
    refusal = AudioError(f"{name}: not audio that libsndfile reads ({reason})")
    try:
        with _raw(source) as raw:
            head = raw.read(16)
    except OSError:
        raise refusal from None
    if not head.startswith(_FFMPEG_MAGIC) and head[4:8] != b"ftyp":
        raise refusal
    program = ffmpeg_program()
    if program is None:
        raise AudioError(f"{name}: not audio that libsndfile reads, and ffmpeg is not installed")
    with tempfile.TemporaryDirectory(prefix="codec-slm-") as folder:
        if isinstance(source, str | os.PathLike):
            path = os.fspath(source)
        else:  # not through a pipe: MP4 keeps its table of contents at the end
            path = os.path.join(folder, "encoded")
            with source.open_audio() as raw, open(path, "wb") as copy:
                shutil.copyfileobj(raw, copy)
        decoded = os.path.join(folder, "decoded.wav")
        words = [
            "-nostdin",
            "-v",
            "error",
            "-protocol_whitelist",
            "file",
            "-i",
            f"file:{path}",
            "-map",
            "0:a:0",
        ]
        result = subprocess.run(
            [program, *words, "-c:a", "pcm_f32le", "-rf64", "auto", decoded], capture_output=True, check=False
        )
        told = result.stderr.decode("utf-8", "replace").strip()
        if result.returncode or told:
            raise AudioError(
                f"{name}: ffmpeg cannot read all of it ({printable(told.splitlines()[0][:200])})"
            )
        # The open file outlives its name.
        return SequentialSoundFile(open(decoded, "rb"))


def sndfile_reason(error: Exception) -> str:
    """libsndfile's own words without the file name, which the message has already."""
    text = getattr(error, "error_string", "") or first_line(error)
    return printable(text.removeprefix("Error : ").rstrip("."))


def printable(text: str) -> str:
    r"""The text with each byte of a name that is not UTF-8, and each half of a surrogate pair, as \xe9 or \ud83d."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


class ByteRange(io.RawIOBase):
    """A range of a file as a file of its own."""

    def __init__(self, file: BinaryIO | io.FileIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        wanted = min(len(buffer), max(0, self._size - self._position))
        self._file.seek(self._offset + self._position)
        content = self._file.read(wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Longer(ByteRange):
    """A range that claims to be much longer than it is: libsndfile, which guesses from the size, reads to the end.

    It looks for an ID3 tag in the last 128 bytes, and finds zeros there.
    """

    _TIMES, _TAG = 1000, 128

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__(file, offset, size * self._TIMES)
        self._real = size

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        if self._position < self._real:
            return super().readinto(memoryview(buffer)[: self._real - self._position])
        if self._position < self._size - self._TAG:
            return 0
        count = min(len(buffer), self._size - self._position)
        buffer[:count] = bytes(count)
        self._position += count
        return count


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return io.BufferedReader(raw)  # type: ignore[return-value, type-var]
