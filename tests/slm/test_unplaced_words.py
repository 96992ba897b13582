"""Words without times: they are read, kept, and never paired with frames by a guess."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.foundation import UserError
from data import Word, open_corpus
from slm.documents.alignment import match_words

TEXT = "One two, three -- four five six."


def timed(unplaced: set[int]) -> list[Word]:
    """A word a second from 1 s on; those in `unplaced` have no times."""
    spoken = [word for word in TEXT.split() if word != "--"]
    return [
        Word(word, None, None) if index in unplaced else Word(word, index + 1.0, index + 1.5)
        for index, word in enumerate(spoken)
    ]


@given(st.sets(st.integers(0, 5), max_size=5))
def test_an_unplaced_word_shares_the_unit_of_the_word_before_it(unplaced: set[int]) -> None:
    whole, found = match_words(TEXT, timed(set())), match_words(TEXT, timed(unplaced))
    assert whole is not None and found is not None
    kept = [index for index in range(6) if index not in unplaced]
    assert found.first_piece.tolist() == [0, *whole.first_piece[kept[1:]].tolist()]
    # The first unit is spoken from its first word on, or from nobody knows when.
    begin = 0.0 if 0 in unplaced else 1.0
    np.testing.assert_array_equal(found.seconds, [begin, *whole.seconds[kept[1:]]])


def test_without_any_time_there_is_nothing_to_match() -> None:
    assert match_words(TEXT, timed(set(range(6)))) is None


def test_manifests_carry_words_without_times(tmp_path: Path) -> None:
    words = [["One", 0.0, 0.1], ["two,", None, None], ["three", 0.1, 0.2]]
    as_dicts = [{"word": w, "start": s, "end": e} for w, s, e in words]
    lines = [{"audio": "a.wav", "words": words}, {"audio": "b.wav", "words": as_dicts}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for utterance in open_corpus(tmp_path / "m.jsonl").utterances:
        assert utterance.words == tuple(Word(*word) for word in words)
    lines[1]["words"][1]["start"] = 0.05
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(
        UserError, match=r"line 2: cannot read `words` .*'two,' has one of its two times only"
    ):
        open_corpus(tmp_path / "m.jsonl")
