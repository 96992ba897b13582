"""A small corpus, made for each test that asks."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 24000


def write_ljspeech(root: Path, train: int, dev: int, rate: int = RATE) -> Path:
    """An LJSpeech-style corpus of noise, utterances of 0.1 to 1.5 s."""
    (root / "wavs").mkdir(parents=True)
    random = np.random.default_rng(7)
    ids = [f"utt{number:03d}" for number in range(train + dev)]
    for identity in ids:
        samples = random.integers(-8000, 8000, size=int(random.integers(rate // 10, 3 * rate // 2)))
        soundfile.write(root / "wavs" / f"{identity}.flac", samples.astype(np.int16), rate)
    rows = [f"{identity}|Nr. {identity}|Number {identity}, ü." for identity in ids]
    (root / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "train.txt").write_text("\n".join(ids[:train]) + "\n")
    (root / "dev.txt").write_text("\n".join(ids[train:]) + "\n")
    return root


@pytest.fixture
def corpus_path(tmp_path: Path) -> Path:
    return write_ljspeech(tmp_path / "a corpus", train=24, dev=4)
