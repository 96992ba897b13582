"""Recordings that strangers send: read in bounded memory, whatever their headers say, and never by a name of theirs."""

import io
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from codec.foundation import UserError
from data import read_blocks
from data.audio import AudioSource

_BLOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Upload:
    """An encoded audio file that came over the network; errors call it by `name`."""

    content: bytes
    name: str = "the recording"

    def __str__(self) -> str:
        return self.name

    def open_audio(self) -> BinaryIO:
        """As `data.AudioObject`."""
        if not self.content:
            raise UserError(f"{self.name} is empty (0 bytes)")
        return io.BytesIO(self.content)


@dataclass(frozen=True)
class Recording:
    """What was read of a recording."""

    waveform: Tensor  # (samples,) at the rate that was asked for
    is_whole: bool  # whether it ended within the limit


def read_recording(source: AudioSource, sampling_rate: int, most_seconds: float) -> Recording:
    """Read up to `most_seconds`; not a block more is decoded, so a small file that unpacks to days costs no more.

    Raises UserError for what is no audio.
    """
    most = round(most_seconds * sampling_rate)
    blocks: list[Tensor] = []
    held = 0
    for block in read_blocks(source, sampling_rate, _BLOCK_SECONDS):
        blocks.append(block)
        held += len(block)
        if held > most:
            break
    return Recording(torch.cat(blocks)[:most], held <= most)
