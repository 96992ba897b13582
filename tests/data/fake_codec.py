"""A codec for tests of what surrounds a codec: fast, and its codes follow from the samples of their frame
alone.
"""

import os
import signal
import time
from collections.abc import Iterable
from types import SimpleNamespace

import torch
from torch import Tensor

HOP = 1000


class FakeCodec(torch.nn.Module):
    """Codes are sums over samples, scaled to 16 bits and weighted by place in the frame, modulo the
    codebook's size.

    In its `kill_in_call`-th call it kills its process; every call takes `seconds` at least.
    """

    def __init__(
        self,
        fingerprint: str = "0123456789abcdef",
        num_quantizers: int = 1,
        kill_in_call: int = 0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(
            name="fake-codec",
            fingerprint=fingerprint,
            sampling_rate=24000,
            hop_length=HOP,
            frame_rate=24.0,
            codebook_sizes=[2048] * num_quantizers,
            num_quantizers=num_quantizers,
            chunk_seconds=None,
            overlap_seconds=None,
        )
        self.kill_in_call, self.seconds = kill_in_call, seconds
        self.calls = 0
        self.padded_samples: list[int] = []
        # odd numbers, so that every sample of a frame counts
        self._weights = torch.stack([torch.arange(HOP) * 2 * (q + 1) + 1 for q in range(num_quantizers)])

    def encode(self, input_values: Tensor, padding_mask: Tensor | None = None) -> SimpleNamespace:
        self.calls += 1
        if self.calls == self.kill_in_call:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        batch, _, samples = input_values.shape
        self.padded_samples.append(batch * samples)
        if padding_mask is None:
            padding_mask = torch.ones(batch, samples, dtype=torch.bool)
        masked = torch.nn.functional.pad(input_values[:, 0] * padding_mask, (0, -samples % HOP))
        frames = (masked * 32768).round().long().reshape(batch, -1, HOP)  # (batch, frames, hop)
        codes = (frames @ self._weights.T.to(frames)) % 2048  # (batch, frames, quantizers)
        frame_mask = torch.nn.functional.pad(padding_mask, (0, -samples % HOP)).reshape(batch, -1, HOP).any(2)
        return SimpleNamespace(audio_codes=codes.transpose(1, 2), frame_mask=frame_mask, voice=None)

    def encode_blocks(self, blocks: Iterable[Tensor]) -> SimpleNamespace:
        return self.encode(torch.cat(list(blocks))[None, None])

    def decode(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, voice: Tensor | None = None
    ) -> SimpleNamespace:
        """A frame's first code as the level of its samples."""
        return SimpleNamespace(audio_values=(audio_codes[:, :1] / 2048).repeat_interleave(HOP, dim=2))

    def decode_blocks(self, audio_codes: Tensor, voice: Tensor | None = None) -> Iterable[Tensor]:
        for piece in audio_codes.split(7, dim=1):
            yield self.decode(piece[None]).audio_values[0, 0]
