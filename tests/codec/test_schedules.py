"""Schedules equal an obvious version that writes the whole curve down, and known values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.foundation import Schedule, UserError


def _curve(kind: str, warmup: int, decay: int, final: float, total: int) -> list[float]:
    """All factors of a run: a list of ones whose beginning and end are overwritten."""
    curve = [1.0] * total
    length = {"constant": 0, "cosine": max(0, total - warmup), "warmup-stable-decay": min(decay, total)}[kind]
    for i in range(length):
        share = i / length
        falling = (1 + math.cos(math.pi * share)) / 2 if kind == "cosine" else 1 - share
        curve[total - length + i] = falling * 1.0 + (1 - falling) * final
    for i in range(min(warmup, total)):
        curve[i] = min(curve[i], (i + 1) / warmup)
    return curve


@given(
    kind=st.sampled_from(["constant", "cosine", "warmup-stable-decay"]),
    warmup=st.integers(0, 40),
    decay=st.integers(0, 60),
    final=st.floats(0, 1),
    total=st.integers(1, 50),
)
def test_equals_the_written_out_curve(kind: str, warmup: int, decay: int, final: float, total: int) -> None:
    schedule = Schedule(kind, warmup_steps=warmup, decay_steps=decay, final_fraction=final)  # type: ignore[arg-type]
    factors = [schedule.factor(step, total) for step in range(total)]
    assert factors == pytest.approx(_curve(kind, warmup, decay, final, total), abs=1e-12)
    assert all(0 < factor <= 1 for factor in factors)
    assert kind == "constant" or schedule.factor(total, total) == pytest.approx(
        min(final, (total + 1) / warmup if warmup else 1)
    )


def test_known_values() -> None:
    schedule = Schedule(warmup_steps=4, decay_fraction=0.2)
    assert [schedule.factor(step, 20) for step in (0, 1, 3, 4, 15, 16, 17, 19)] == pytest.approx(
        [0.25, 0.5, 1, 1, 1, 1, 0.75, 0.25]
    )
    cosine = Schedule("cosine", warmup_steps=10, final_fraction=0.1)
    assert [cosine.factor(step, 110) for step in (10, 60, 110)] == pytest.approx([1, 0.55, 0.1])


def test_a_longer_run_shares_the_stable_part() -> None:
    schedule = Schedule(warmup_steps=10, decay_steps=20)
    short, long = ([schedule.factor(step, total) for step in range(80)] for total in (100, 300))
    assert short == long


def test_settings_that_make_no_schedule_are_refused() -> None:
    wrong = {"kind": "linear", "warmup_steps": -1, "decay_fraction": 1.5, "final_fraction": -0.1}
    for field, value in wrong.items():
        with pytest.raises(UserError, match=f"schedule.{field}"):
            Schedule(**{field: value})  # type: ignore[arg-type]
