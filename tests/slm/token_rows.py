"""Token datasets in memory, for what does not depend on files."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sentencepiece

from codec import CodecInfo

SENTENCES = [
    "Author of the danger trail, Philip Steels, etc.",
    "Not at this particular case, Tom, apologized Whittemore.",
    'He said: "Well-known facts - all of them - are dull."',
    "For the twentieth time that evening the two men shook hands.",
    "Lord, but I'm glad to see you again, Phil!",
    "Will we ever forget it?  No.",
    "God bless 'em, I hope I'll go on seeing them forever.",
    "And you always want to see it in the superlative degree.",
    "Gad, your letter came just in time.",
    "He turned sharply, and faced Gregson across the table.",
]


def codec_info(codebook_sizes: tuple[int, ...] = (2048,), fingerprint: str = "0123456789abcdef") -> CodecInfo:
    return CodecInfo(
        name="hh-codec-tiny",
        fingerprint=fingerprint,
        sampling_rate=24000,
        hop_length=1000,
        frame_rate=24.0,
        codebook_sizes=codebook_sizes,
        num_quantizers=len(codebook_sizes),
        chunk_seconds=None,
        overlap_seconds=None,
    )


@dataclass
class MemoryRows:
    """Rows of `slm.documents.rows.TokenRows`, as lists."""

    streams: list[np.ndarray]
    texts: list[str | None]
    speakers: list[str | None]
    timed: list[list[tuple[str, float, float]] | None]
    info: CodecInfo = field(default_factory=codec_info)
    name: str = "in memory"

    def __len__(self) -> int:
        return len(self.streams)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(stream) for stream in self.streams], dtype=np.int64)

    def codes(self, index: int) -> np.ndarray:
        return self.streams[index]

    def text(self, index: int) -> str | None:
        return self.texts[index]

    def language(self, index: int) -> str | None:
        return None

    def speaker(self, index: int) -> str | None:
        return self.speakers[index]

    def words(self, index: int) -> list[tuple[str, float, float]] | None:
        return self.timed[index]


def speech_rows(count: int, seed: int = 0, codec: CodecInfo | None = None) -> MemoryRows:
    """Utterances of 2 to 10 s at 24 frames a second, 40 to 60 characters, two speakers, word times."""
    codec = codec or codec_info()
    random = np.random.default_rng(seed)
    sizes = np.array(codec.codebook_sizes)
    streams, texts, timed = [], [], []
    for _ in range(count):
        frames = int(random.integers(48, 241))
        streams.append(random.integers(0, sizes, size=(frames, len(sizes))).astype(np.uint16).reshape(-1))
        text = SENTENCES[random.integers(len(SENTENCES))]
        texts.append(text)
        words = [word.strip("\"'.,:!?-") for word in text.split()]
        words = [word for word in words if word]
        times = np.sort(random.uniform(0.1, frames / 24, size=len(words) + 1)).tolist()
        timed.append([*zip(words, times[:-1], times[1:], strict=True)])
    speakers = [("slt", "rms")[i % 2] for i in range(count)]
    return MemoryRows(streams, list(texts), list(speakers), list(timed), codec)


def train_text_model(directory: Path, kind: str) -> Path:
    """A small SentencePiece model that gives text back exactly."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5),
        model_prefix=str(directory / kind),
        model_type=kind,
        vocab_size=320 if kind == "char" else 380,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        minloglevel=2,
    )
    return directory / f"{kind}.model"
