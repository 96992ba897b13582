"""A recording for who has none at hand: from the corpus that is bundled."""

from functools import lru_cache
from pathlib import Path

import numpy as np

_RECORDING = Path(__file__).parents[2] / "bundled" / "sample_corpus" / "wavs" / "slt-0014.flac"


@lru_cache(maxsize=1)
def example_recording() -> tuple[int, np.ndarray]:
    """Its sampling rate, and (samples,) int16."""
    import soundfile

    samples, rate = soundfile.read(_RECORDING, dtype="int16")
    return rate, samples
