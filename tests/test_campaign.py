"""The short form of the campaign, and that it sees what it looks for."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import campaign


def test_every_case_is_read_or_says_why_not() -> None:
    outcomes, told = campaign.campaign(seed=1, count=150)
    assert told == [] and sum(outcomes.values()) == 150
    for kind in ("audio", "corpus", "tokens", "command"):
        assert outcomes[kind, "refused"] and outcomes[kind, "read"], kind
    assert outcomes["run", "read"] + outcomes["run", "read in part"]


def lose(*_: object) -> str:
    raise campaign.Lost("a row")


@pytest.mark.parametrize(
    ("outcome", "case"),
    [
        ("traceback", lambda *_: [][0]),
        ("crash", lambda *_: os.abort()),
        ("hang", lambda *_: time.sleep(60)),
        ("lost", lose),
    ],
)
def test_bad_outcomes_are_told_apart(
    outcome: str, case: Callable[[np.random.Generator, Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "HANG_SECONDS", 1.0)
    monkeypatch.setattr(campaign, "CASES", dict.fromkeys(campaign.CASES, case))
    outcomes, told = campaign.campaign(seed=0, count=2)
    assert {found for _, found in outcomes} == {outcome} and outcomes.total() == 2
    assert len(told) == 2 and f" {outcome}: " in told[1]
