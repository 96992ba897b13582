"""What `codec-slm bench` times, and how long."""

from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal["codecs", "tokenize", "memory", "generation", "training", "hybrid", "bigvgan"]
PARTS: tuple[Part, ...] = get_args(Part)

LONG_SECONDS = 3 * 3_600.0  # of the recording that the budget for memory is about


@dataclass(frozen=True)
class Effort:
    """How much each part is timed on, and how often.

    `rounds` are of those that take little time; what takes long has at most `long_rounds`.
    """

    seconds: float  # of audio, for codecs
    vocoder_seconds: float
    rounds: int
    long_rounds: int
    tokenize_seconds: float  # with a small codec
    tokenize_published_seconds: float  # with hh-codec
    memory_seconds: float
    generated_tokens: int  # after each prompt
    block_length: int
    blocks: int  # of a training step


FULL = Effort(10.0, 4.0, 7, 3, 1_200.0, 300.0, LONG_SECONDS, 240, 2_048, 4)
QUICK = Effort(1.5, 1.0, 3, 3, 60.0, 20.0, 600.0, 60, 1_024, 1)
