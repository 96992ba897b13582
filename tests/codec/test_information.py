"""Held-out information against what is planted, and against scikit-learn's plug-in estimate."""

import numpy as np
import pytest

from codec.foundation.random import generator
from codec.metrics import naive_bayes, predictive_information


def planted(utterances: int, frames: int, noise: float, codes: int, seed: int = 0) -> tuple[list, list]:
    """Labels 0 to 3, evenly; a code names its frame's label, but with `noise` any label."""
    random = generator(seed, "planted")
    labels = [random.integers(0, 4, frames) for _ in range(utterances)]
    streams = []
    for own in labels:
        heard = np.where(random.random(frames) < noise, random.integers(0, 4, frames), own)
        streams.append(heard * (codes // 4) + random.integers(0, codes // 4, frames))
    return streams, labels


@pytest.mark.parametrize("codes", [4, 400])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_finds_what_is_planted(codes: int, noise: float) -> None:
    streams, labels = planted(100, 200, noise, codes)
    right = 1 - noise + noise / 4
    wrong = noise / 4
    truth = 2.0 + right * np.log2(right) + (3 * wrong * np.log2(wrong) if noise else 0.0)
    found = predictive_information(streams, labels, codes, 4)
    # never more than there is; with 40 frames a code to learn from, a little less
    assert truth - (0.1 if codes > 4 else 0.01) < found.bits.value < truth + 0.01
    assert found.bits.low < found.bits.value < found.bits.high or noise == 0
    assert found.label_bits == pytest.approx(2.0, abs=1e-3) and found.frames == 20_000
    assert found.share == pytest.approx(found.bits.value / 2, abs=1e-3)


def test_rare_codes_do_not_look_informative() -> None:
    """Where counting alone is fooled."""
    metrics = pytest.importorskip("sklearn.metrics")
    random = generator(0, "noise")
    codes = [random.integers(0, 1_000, 50) for _ in range(40)]
    labels = [random.integers(0, 8, 50) for _ in range(40)]
    counted = metrics.mutual_info_score(np.concatenate(codes), np.concatenate(labels)) / np.log(2)
    found = predictive_information(codes, labels, 1_000, 8)
    assert counted > 1.0
    assert -0.05 < found.bits.value < 0.02


def test_agrees_with_counting_where_counting_is_right() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    streams, labels = planted(200, 100, 0.3, 8)
    counted = metrics.mutual_info_score(np.concatenate(streams), np.concatenate(labels)) / np.log(2)
    assert predictive_information(streams, labels, 8, 4).bits.value == pytest.approx(counted, abs=0.01)


def test_speakers_are_told_by_many_small_hints() -> None:
    random = generator(0, "speakers")
    speakers = [number % 3 for number in range(120)]
    hints = np.array([[0.3, 0.2, 0.25, 0.25], [0.2, 0.3, 0.25, 0.25], [0.25, 0.25, 0.3, 0.2]])
    codes = [random.choice(4, 400, p=hints[speaker]) for speaker in speakers]
    found = naive_bayes(codes, speakers, 4, 3)
    assert found.accuracy.low > 0.9 and found.chance == pytest.approx(1 / 3)
    nothing = naive_bayes([random.integers(0, 4, 400) for _ in speakers], speakers, 4, 3)
    assert nothing.accuracy.low < 1 / 3 < nothing.accuracy.high


def test_what_cannot_be_tried() -> None:
    with pytest.raises(ValueError, match="3 utterances cannot be dealt into 5 folds"):
        predictive_information([np.zeros(4, int)] * 3, [np.zeros(4, int)] * 3, 2, 2)
    with pytest.raises(ValueError, match=r"utterance 1 has codes \(4,\) and labels \(5,\)"):
        predictive_information([np.zeros(4, int)] * 5, [np.zeros(4, int), *[np.zeros(5, int)] * 4], 2, 2)
