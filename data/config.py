"""Settings of this package that commands show: importing them loads neither torch nor a dataset library."""

from dataclasses import dataclass
from typing import Literal

from codec.foundation.errors import UserError

CorpusFormat = Literal[
    "auto", "ljspeech", "librispeech", "vctk", "emilia", "seed-tts-eval", "folder", "manifest", "huggingface"
]
TokenizerKind = Literal["char", "bpe", "unigram"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TokenizeOptions:
    """What decides the bytes of a token dataset, beside the corpus and the codec.

    shards: files of the training split at most (other splits get as many for their length). By default a file holds
        a quarter of an hour, and there are at most 1,024.
    speeds, shifts: each training recording is encoded at each speed, with so many sub-frame shifts.
    batch_seconds: audio in a batch, padding included.
    long_seconds: longer recordings are encoded block by block, in bounded memory.
    precision: of the encoder. In bfloat16, codes of near ties differ from those in float32.
    gain: factor on every recording, for corpora far from the level that the codec was trained at.
    source, licence: of the recordings, for the dataset card.

    Raises UserError for values out of range.
    """

    shards: int | None = None
    speeds: tuple[float, ...] = (1.0,)
    shifts: int = 1
    batch_seconds: float = 60.0
    long_seconds: float = 120.0
    precision: Precision = "float32"
    gain: float = 1.0
    source: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards < 1:
            raise UserError(f"shards is {self.shards}: expected at least 1")
        if not (self.batch_seconds > 0 and self.long_seconds > 0):
            raise UserError("batch_seconds and long_seconds must be more than 0")
        if not 0 < self.gain < float("inf"):
            raise UserError(f"gain is {self.gain}: expected a factor above 0")
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"unknown precision {self.precision!r}: choose float32 or bfloat16")
