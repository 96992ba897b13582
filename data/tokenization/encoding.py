"""Running the encoder over batches, one batch ahead of the codes' way back."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec import CodecInfo
from codec.foundation import UserError
from codec.foundation.memory import return_free_memory

_TIDY_SECONDS = 600.0  # of a long recording between two times that free memory is given back


@dataclass
class PendingCodes:
    """Codes that may still be on their way: `streams()` waits for them."""

    codes: Tensor  # (batch, num_quantizers, frames)
    frames: list[int]  # of each row

    def streams(self) -> list[np.ndarray]:
        """One stream a row, (frames * num_quantizers,) uint16, frame-major."""
        codes = self.codes.cpu().numpy().astype(np.uint16)
        return [to_stream(row[:, :count]) for row, count in zip(codes, self.frames, strict=True)]


def to_stream(codes: np.ndarray) -> np.ndarray:
    """(num_quantizers, frames) -> (frames * num_quantizers,) frame-major."""
    return np.ascontiguousarray(codes.T).reshape(-1)


def to_codes(stream: np.ndarray, num_quantizers: int) -> Tensor:
    """(frames * num_quantizers,) -> (num_quantizers, frames) int64."""
    return torch.from_numpy(stream.astype(np.int64).reshape(-1, num_quantizers).T.copy())


class BatchEncoder:
    """A codec's encoder over padded batches and over long recordings.

    Raises UserError for a codec whose codes do not fit 16 bits.
    """

    def __init__(self, model: Any, precision: str = "float32") -> None:
        self.info = CodecInfo.of(model)
        if max(self.info.codebook_sizes) > 2**16:
            raise UserError(
                f"{self.info.name} has more than 65,536 codes a codebook: a token dataset holds 16 bits"
            )
        self._model, self._precision = model, precision
        self._device = next(iter(model.parameters())).device

    @property
    def on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def encode(self, waveforms: Tensor, lengths: Sequence[int]) -> PendingCodes:
        """(batch, samples) with each row's samples -> its codes, without waiting for the device."""
        with _inference(self._device.type, self._precision):
            input_values = waveforms.to(self._device, non_blocking=True)[:, None]  # (batch, 1, samples)
            positions = torch.arange(waveforms.shape[1], device=self._device)
            mask = positions < torch.tensor(lengths, device=self._device)[:, None]  # (batch, samples)
            codes = self._model.encode(input_values, mask).audio_codes
        return PendingCodes(codes, [-(-length // self.info.hop_length) for length in lengths])

    def encode_long(self, blocks: Iterable[Tensor]) -> "LongCodes":
        """One recording that comes in blocks (samples,)."""
        samples = 0
        often = round(_TIDY_SECONDS * self.info.sampling_rate)

        def counted() -> Iterator[Tensor]:
            nonlocal samples
            for block in blocks:
                if samples // often < (samples + len(block)) // often:
                    return_free_memory()
                samples += len(block)
                yield block

        with _inference(self._device.type, self._precision):
            codes = self._model.encode_blocks(counted())  # (num_quantizers, frames)
        return LongCodes(to_stream(codes.cpu().numpy().astype(np.uint16)), samples)


@dataclass
class LongCodes:
    """The stream of a long recording, and its length in samples."""

    stream: np.ndarray  # (frames * num_quantizers,) uint16
    samples: int


@contextmanager
def _inference(device: str, precision: str) -> Iterator[None]:
    # TF32 keeps 10 bits of a product: enough to flip codes between batches of different shapes.
    # The flags are the whole process's, and on a CPU several threads come here at once.
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with (
        torch.inference_mode(),
        cudnn if device == "cuda" else nullcontext(),
        torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield
