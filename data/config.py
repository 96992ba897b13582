"""Settings of this package that commands show: importing them loads neither torch nor a dataset library."""

import codecs
from dataclasses import dataclass
from typing import Literal

from codec.foundation.errors import UserError

CorpusFormat = Literal[
    "auto",
    "ljspeech",
    "librispeech",
    "vctk",
    "emilia",
    "seed-tts-eval",
    "common-voice",
    "kaldi",
    "webdataset",
    "folder",
    "manifest",
    "huggingface",
]
TokenizerKind = Literal["char", "bpe", "unigram"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Augmentation:
    """Probability of each change to a training segment, and its range.

    Speed, reverberation, band limit and level change the codec's input and its target. Noise changes the input only.

    speed, speed_range: up to this share faster or slower; pitch and formants move too.
    reverb, rt60: seconds.
    band, band_limits: Hz, one of them.
    level, level_db: added to the level of every segment.
    noise, snr_db: white, pink, or the babble of other utterances.

    Raises UserError for values out of range.
    """

    speed: float = 0.0
    speed_range: float = 0.12
    reverb: float = 0.0
    rt60: tuple[float, float] = (0.1, 0.4)
    band: float = 0.0
    band_limits: tuple[float, ...] = (8000.0, 4000.0)
    level: float = 0.0
    level_db: tuple[float, float] = (-24.0, 0.0)
    noise: float = 0.0
    snr_db: tuple[float, float] = (15.0, 40.0)

    def __post_init__(self) -> None:
        for name in ("speed", "reverb", "band", "level", "noise"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} is {getattr(self, name)}: expected a probability, 0 to 1")
        if not 0.0 <= self.speed_range < 0.5:
            raise UserError(f"speed_range is {self.speed_range}: expected 0 to 0.5")
        for name in ("rt60", "level_db", "snr_db"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"{name} is {(low, high)}: expected the lower end first")
        if self.rt60[0] <= 0 or not self.band_limits or min(self.band_limits) <= 0:
            raise UserError("rt60 and band_limits must be above 0")


@dataclass(frozen=True)
class CorpusOptions:
    """What to take from a corpus, where its own words do not say it or say it otherwise.

    Raises UserError for an unknown encoding, and a channel below 0.
    """

    text_column: str | None = None
    """where a table keeps the text, if not under a usual name."""
    audio_column: str | None = None
    """where it keeps the recording; where it has several."""
    id_column: str | None = None
    """where it keeps the ids."""
    speaker_column: str | None = None
    """where it keeps the speakers."""
    split_column: str | None = None
    """where it keeps the split of each row."""
    encoding: str = "utf-8"
    """of the corpus's text files (UTF-8 with or without a byte order mark)."""
    channel: int | None = None
    """which channel of recordings with several, from 0; by default they are averaged."""

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise UserError(
                f"unknown encoding {self.encoding!r}: try utf-8, utf-16, cp1252, gb18030"
            ) from None
        if self.channel is not None and self.channel < 0:
            raise UserError(f"channel is {self.channel}: expected 0 (the first) or more")


@dataclass(frozen=True)
class CorpusSource:
    """Where a corpus is and how it is to be read; see `data.open_corpus`."""

    path: str
    format: CorpusFormat = "auto"
    speaker: str | None = None
    language: str | None = None
    options: CorpusOptions = CorpusOptions()


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
