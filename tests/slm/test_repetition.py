"""Self-repetition of codes: what arithmetic says of planted copies and loops."""

import math

import numpy as np
import pytest

from slm.evaluation import metrics
from slm.evaluation.metrics import CodeRepetition


def code_repetition(codes: np.ndarray, order: int = 4) -> CodeRepetition:
    return metrics.code_repetition(codes, order)


def test_a_copy_and_a_loop() -> None:
    once = np.arange(50)
    assert code_repetition(once[None]).repeated == 0.0
    for copies, length in ((2, 50), (5, 50), (12, 6)):
        found = code_repetition(np.tile(np.arange(length), copies)[None])
        assert found.repeated == pytest.approx(1 - length / (copies * length - 3))
        assert found.longest_run == 1
        pairs = metrics.code_repetition(np.tile(np.arange(length), copies)[None])
        assert pairs.repeated == pytest.approx(1 - length / (copies * length - 1))
    # half of an utterance of 100 frames is a copy, whose first whole 4-gram begins with it
    rest = np.concatenate([once, np.arange(100, 150), once])
    assert code_repetition(rest[None]).repeated == pytest.approx((50 - 3) / (150 - 3))


def test_a_code_that_stands_still() -> None:
    found = code_repetition(np.array([[1, 2, 2, 2, 2, 2, 3, 3]]))
    assert found.longest_run == 5
    assert found.repeated == pytest.approx(1 / 5)  # 1222 2222 2222 2223 2233
    assert code_repetition(np.full((1, 40), 7)).repeated == pytest.approx(1 - 1 / 37)


def test_a_frame_is_all_its_codes() -> None:
    first = np.tile([1, 2, 3], 8)
    assert code_repetition(np.stack([first, np.arange(24)])).repeated == 0.0
    both = code_repetition(np.stack([first, first + 5]))
    assert both == code_repetition(first[None]) and both.repeated == pytest.approx(1 - 3 / 21)


def test_little_and_nothing() -> None:
    assert code_repetition(np.zeros((1, 0), int)).longest_run == 0
    short = code_repetition(np.array([[4, 4, 4]]))
    assert math.isnan(short.repeated) and short.longest_run == 3


def test_against_a_loop_over_windows() -> None:
    codes = np.random.default_rng(0).integers(0, 3, (2, 200))
    seen: set[tuple[tuple[int, ...], ...]] = set()
    again = 0
    for start in range(197):
        gram = tuple(tuple(frame) for frame in codes[:, start : start + 4].T.tolist())
        again += gram in seen
        seen.add(gram)
    assert code_repetition(codes).repeated == pytest.approx(again / 197)
