"""Band-limited resampling in blocks: torchaudio's windowed-sinc kernel with its context carried along.

Output sample j sits at input position j · orig / new. With both rates divided by their greatest common
divisor the filters repeat every `new` outputs, which is one *step* of `orig` inputs: block by block,
segment by segment or all at once, a step is computed from the same samples by the same filters.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

# Above this many weights (44,101 Hz to 24,000 Hz needs 10⁹) the dense filters are nearly all zeros: they
# are kept as short rows with a start each.
_DENSE_WEIGHTS = 2**22

# torchaudio's defaults (Hann-windowed sinc, 6 zero crossings a side, cut-off at 99 % of the lower Nyquist
# rate).
_ZERO_CROSSINGS = 6
_ROLLOFF = 0.99


class ResamplingKernel:
    """The filters from one sampling rate to another: what one step of output takes from the input.

    `orig`, `new`: inputs and outputs of a step; `width`: samples that a step looks at on either side of its
    own.
    """

    def __init__(self, orig_rate: int, new_rate: int) -> None:
        divisor = math.gcd(orig_rate, new_rate)
        self.orig, self.new = orig_rate // divisor, new_rate // divisor
        self.width = math.ceil(_ZERO_CROSSINGS * self.orig / (min(self.orig, self.new) * _ROLLOFF))
        self._filters: Tensor | None = None  # (new, 2 · width + orig)
        self._starts: Tensor | None = None  # (new,) where in the step's inputs a short filter begins
        if self.new * (2 * self.width + self.orig) <= _DENSE_WEIGHTS:
            from torchaudio.transforms import Resample

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
    """The (cached) kernel from `orig_rate` to `new_rate`, in samples a second or any two numbers of that
    ratio.
    """
    return ResamplingKernel(orig_rate, new_rate)


class Resampler:
    """Resamples a waveform that comes in blocks; the blocks joined equal the whole resampled at once (1e-6).

    `push` takes (samples,) and gives what can be known by then, `finish` the rest: ceil(samples · new /
    orig) in all. What is kept between calls is a step and its context.
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
