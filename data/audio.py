"""Audio files in, mono waveforms out: everything libsndfile reads, at any rate, of any length.

A waveform is float32 (samples,): integers are scaled to [-1, 1), floats stay as they are (a clipped recording stays
clipped), channels are averaged. An AudioError says why a source cannot be used: a missing or empty file, no audio, no
samples, a file that ends before its header says so, NaN or infinities.
"""

import io
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from codec.foundation import UserError, check_regular
from data.decoding import AudioSource, Recording, sndfile_reason
from data.recordings import SOFTWARE, written_format

# torchaudio's defaults: a Hann-windowed sinc, 6 zero crossings a side, cut off at 99 % of the lower Nyquist rate.
_ZERO_CROSSINGS = 6
_ROLLOFF = 0.99
# With more weights (44,101 Hz to 24,000 Hz needs 10⁹) nearly all are zeros: the filters are kept as short rows with a
# start each.
_DENSE_WEIGHTS = 2**22
Frames = TypeVar("Frames", int, np.ndarray)


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    frames: int
    sampling_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sampling_rate

    def samples(self, sampling_rate: int, speed: float = 1.0) -> int:
        """Length of the waveform that `read_audio` gives for the same arguments."""
        return resampled_length(self.frames, self.sampling_rate, sampling_rate, speed)


def resampled_length(frames: Frames, file_rate: int, sampling_rate: int, speed: float = 1.0) -> Frames:
    """Samples at `sampling_rate` of recordings of so many frames at their own rate, at a speed."""
    orig, new = _rates(file_rate, sampling_rate, speed)
    return -(-frames * new // orig)


def audio_info(source: AudioSource) -> AudioInfo:
    """Length, rate and channels of an audio file, from its header where that says it.

    Raises AudioError when it cannot be opened.
    """
    with Recording(source) as recording:
        frames = recording.frames
        if frames is None:
            frames = sum(len(part) for part in recording.parts())
        return AudioInfo(frames, recording.sampling_rate, recording.channels)


def read_audio(source: AudioSource, sampling_rate: int, speed: float = 1.0) -> Tensor:
    """The whole waveform (samples,), float32, mono, at `sampling_rate`.

    `speed` plays the recording that much faster and raises its pitch with it. Raises AudioError.
    """
    return torch.cat(list(_resampled(source, sampling_rate, speed)))


def read_blocks(
    source: AudioSource, sampling_rate: int, block_seconds: float, speed: float = 1.0
) -> Iterator[Tensor]:
    """The samples of `read_audio` in blocks of `block_seconds` (the last may be shorter), in bounded memory.

    Raises AudioError, possibly after some blocks.
    """
    size = max(1, round(block_seconds * sampling_rate))
    pending: list[Tensor] = []
    held = 0
    for piece in _resampled(source, sampling_rate, speed):
        while held + len(piece) >= size:
            head, piece = piece[: size - held], piece[size - held :]
            yield torch.cat([*pending, head])
            pending, held = [], 0
        if len(piece):
            pending.append(piece)
            held += len(piece)
    if held:
        yield torch.cat(pending)


def read_segment(source: AudioSource, sampling_rate: int, start: int, count: int) -> Tensor:
    """Samples [start, start + count) of what `read_audio` gives, reading only the part of the file they need.

    Fewer samples come back where the file ends. Raises AudioError.
    """
    with Recording(source) as recording:
        total = recording.frames
        if total is None:
            return read_audio(source, sampling_rate)[start : start + count]
        if recording.sampling_rate == sampling_rate:
            return recording.range(start, min(start + count, total))
        kernel = resampling_kernel(recording.sampling_rate, sampling_rate)
        stop = min(start + count, kernel.output_length(total))
        if stop <= start:
            return torch.zeros(0)
        first, last = start // kernel.new, -(-stop // kernel.new)  # steps
        begin, end = first * kernel.orig - kernel.width, last * kernel.orig + kernel.width
        inside = recording.range(max(begin, 0), min(end, total))
        padded = torch.nn.functional.pad(inside, (max(-begin, 0), max(end - total, 0)))
        return kernel.apply(padded)[start - first * kernel.new : stop - first * kernel.new]


def write_audio(
    path: str | os.PathLike[str], waveform: Tensor | np.ndarray | Iterable[Tensor], sampling_rate: int
) -> None:
    """Write a mono waveform: (samples,), perhaps with leading dimensions of 1, or blocks of (samples,) one by one.

    The name says the format (`WRITTEN_FORMATS`); WAV, FLAC and AIFF have 16 bits. Samples outside [-1, 1] are clipped.
    The file appears whole or not at all. It bears the name of this project as the software that made it. Raises
    UserError for a name of no known format, OSError where the file cannot be written.
    """
    path = Path(path)
    format, subtype = written_format(path)
    check_regular(path)
    blocks = [torch.as_tensor(waveform)] if isinstance(waveform, Tensor | np.ndarray) else waveform
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        with _Output(temporary, path) as output:
            with soundfile.SoundFile(output, "w", sampling_rate, 1, subtype, format=format) as file:
                if format == "MP3":
                    file.comment = SOFTWARE  # has no field for the software
                else:
                    file.software = SOFTWARE
                for block in blocks:
                    samples = block.detach().to("cpu", torch.float32).reshape(-1)
                    file.write(samples.clamp(-1.0, 1.0).numpy())
                    output.check()
            output.check()
        os.replace(temporary, path)
    except (soundfile.SoundFileError, TypeError, ValueError, AssertionError) as error:
        output.check()
        raise UserError(f"{path}: cannot be written as audio ({sndfile_reason(error)})") from None
    except OSError as error:
        if not path.parent.is_dir():
            raise UserError(f"{path}: cannot be written as audio (no directory {path.parent})") from None
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


class _Output(io.FileIO):
    """A file that remembers why it could not be written: libsndfile does not say."""

    def __init__(self, path: Path, name: Path) -> None:
        super().__init__(path, "w+")
        self._final_name = name
        self._trouble: OSError | None = None

    def write(self, content) -> int:  # type: ignore[no-untyped-def]
        left = memoryview(content)
        try:
            while len(left):  # a full disk takes a part first
                left = left[super().write(left) :]
        except OSError as error:
            self._trouble = self._trouble or OSError(error.errno, error.strerror, str(self._final_name))
        return len(content) - len(left)

    def check(self) -> None:
        """Raise what has gone wrong."""
        if self._trouble is not None:
            raise self._trouble


def _rates(file_rate: int, sampling_rate: int, speed: float) -> tuple[int, int]:
    """Two numbers in the ratio of the rates that the resampler goes between."""
    if speed == 1.0:
        return file_rate, sampling_rate
    # Rounded, by a sample in hours at most, to a pattern that repeats within a second.
    ratio = (Fraction(speed).limit_denominator(1000) * file_rate / sampling_rate).limit_denominator(
        sampling_rate
    )
    return ratio.numerator, ratio.denominator


def _resampled(source: AudioSource, sampling_rate: int, speed: float) -> Iterator[Tensor]:
    """The waveform in pieces of any size."""
    with Recording(source) as recording:
        orig, new = _rates(recording.sampling_rate, sampling_rate, speed)
        resampler = Resampler(*((1, 1) if orig == new else (orig, new)))
        for part in recording.parts():
            yield resampler.push(part)
        yield resampler.finish()


class ResamplingKernel:
    """The filters from one sampling rate to another: torchaudio's windowed sinc, applied step by step.

    Output sample j sits at input position j · orig / new. With both rates divided by their greatest common divisor,
    the filters repeat every `new` outputs, which is one step of `orig` inputs. Block by block, segment by segment or
    all at once, a step is computed from the same samples by the same filters.

    `orig`, `new`: inputs and outputs of a step; `width`: samples that a step looks at on either side of its own.
    """

    def __init__(self, orig_rate: int, new_rate: int) -> None:
        divisor = math.gcd(orig_rate, new_rate)
        self.orig, self.new = orig_rate // divisor, new_rate // divisor
        self.width = math.ceil(_ZERO_CROSSINGS * self.orig / (min(self.orig, self.new) * _ROLLOFF))
        self._filters: Tensor | None = None  # (new, 2 · width + orig)
        self._starts: Tensor | None = None  # (new,) where in the step's inputs a short filter begins
        if self.new * (2 * self.width + self.orig) <= _DENSE_WEIGHTS:
            self._filters = Resample(self.orig, self.new).kernel[:, 0]
        else:
            self._starts, self._filters = _short_filters(self.orig, self.new, self.width)

    def output_length(self, length: int) -> int:
        """ceil(length · new / orig), in whole numbers (torchaudio's own count is rounded to 24 bits)."""
        return -(-length * self.new // self.orig)

    def steps(self, length: int) -> int:
        """How many steps can be computed from so many input samples, context included."""
        return max(0, (length - 2 * self.width) // self.orig)

    def apply(self, waveform: Tensor) -> Tensor:
        """Resample (2 · width + n · orig,) input samples, context on both sides included, to (n · new,)."""
        filters = self._filters
        assert filters is not None
        if self._starts is not None:
            windows = waveform.unfold(0, filters.shape[1], 1)  # (positions, taps)
            count = self.steps(len(waveform))
            return torch.cat([(windows[self._starts + n * self.orig] * filters).sum(1) for n in range(count)])
        if self.new == 1:
            return torch.nn.functional.conv1d(waveform[None, None], filters[:, None], stride=self.orig)[0, 0]
        # One matrix product is several times faster than a convolution with one input channel.
        return (waveform.unfold(0, 2 * self.width + self.orig, self.orig) @ filters.T).reshape(-1)


@lru_cache(maxsize=16)
def resampling_kernel(orig_rate: int, new_rate: int) -> ResamplingKernel:
    """The (cached) kernel between two rates in samples a second, or between any two numbers of that ratio."""
    return ResamplingKernel(orig_rate, new_rate)


class Resampler:
    """Resamples a waveform that comes in blocks; the blocks joined equal the whole resampled at once (1e-6).

    `push` takes (samples,) and returns the output that is known by then, `finish` returns the rest: ceil(samples · new
    / orig) in all. Between calls it keeps a step and its context.
    """

    def __init__(self, orig_rate: int, new_rate: int) -> None:
        self._kernel = None if orig_rate == new_rate else resampling_kernel(orig_rate, new_rate)
        # Silence before the beginning; the first step needs it as context.
        self._pending = torch.zeros(self._kernel.width if self._kernel else 0)
        self._taken = self._given = 0

    def push(self, block: Tensor) -> Tensor:
        if self._kernel is None:
            return block
        self._taken += len(block)
        self._pending = torch.cat([self._pending, block])
        return self._drain(self._kernel)

    def finish(self) -> Tensor:
        kernel = self._kernel
        if kernel is None:
            return torch.zeros(0)
        missing = kernel.output_length(self._taken) - self._given
        # Silence after the end, as much as the last steps need.
        self._pending = torch.nn.functional.pad(self._pending, (0, kernel.width + kernel.orig))
        return self._drain(kernel)[:missing]

    def _drain(self, kernel: ResamplingKernel) -> Tensor:
        steps = kernel.steps(len(self._pending))
        if steps == 0:
            return torch.zeros(0)
        output = kernel.apply(self._pending[: steps * kernel.orig + 2 * kernel.width])
        self._pending = self._pending[steps * kernel.orig :]
        self._given += len(output)
        return output


def _short_filters(orig: int, new: int, width: int) -> tuple[Tensor, Tensor]:
    """The same filters without their zeros: where each begins (new,), and its weights (new, taps)."""
    # Output `phase` of a step sits at position phase · orig / new of the step's inputs; `width` precede them.
    phase = torch.arange(new)
    nearest = phase * orig // new  # (new,)
    offsets = torch.arange(-width, width + 2)  # (taps,) inputs around it; what lies further has weight zero
    cutoff = min(orig, new) * _ROLLOFF
    # Distance in input samples, exactly: the whole part is `offsets`, the fraction has denominator `new`.
    fraction = (phase * orig % new).double() / new
    time = (offsets[None, :].double() - fraction[:, None]) * (cutoff / orig)  # (new, taps), in zero crossings
    time = time.clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = torch.cos(time * math.pi / _ZERO_CROSSINGS / 2) ** 2
    weights = torch.sinc(time) * window * (cutoff / orig)
    # The last tap of the last filters may lie beyond the step's inputs; its weight is zero there.
    starts = nearest + offsets[0] + width
    excess = int(starts.max()) + len(offsets) - (orig + 2 * width)
    if excess > 0:
        weights = weights[:, : len(offsets) - excess]
    return starts, weights.float()
