"""Recordings from the network, read in bounded memory whatever their headers say. Errors name no files."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from codec.foundation import UserError
from data import AudioError, read_blocks
from data.decoding import AudioSource
from recipes.apps.config import DemoLimits
from recipes.inputs import STANDARD

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


def audio_source(path: Path) -> Path | Upload:
    """What to read for a path: standard input for `-`."""
    return Upload(sys.stdin.buffer.read(), "standard input") if str(path) == STANDARD else path


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


def read_upload(content: bytes, sampling_rate: int, limits: DemoLimits) -> tuple[Tensor, str]:
    """(samples,) of an upload or a microphone's recording, and a remark if only its beginning was taken, else "".

    Raises UserError.
    """
    if not content:
        raise UserError("upload or record something first")
    try:
        recording = read_recording(Upload(content), sampling_rate, limits.seconds)
    except AudioError as error:
        raise UserError(f"{error}. WAV, FLAC, OGG and MP3 files can be read.") from None
    remark = "" if recording.is_whole else f"Of the recording, the first {limits.seconds:g} s were taken."
    return recording.waveform, remark
