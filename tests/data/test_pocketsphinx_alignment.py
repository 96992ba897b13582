"""pocketsphinx's word times, on bundled speech whose true times are known, and what it does not place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data import Utterance, Word, open_corpus, read_audio
from data.alignment import AlignmentError
from data.alignment.pocketsphinx import PocketSphinxAligner

pytest.importorskip("pocketsphinx")

SAMPLE = Path(__file__).parents[2] / "recipes" / "bundled" / "sample_corpus"


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    return list(open_corpus(SAMPLE).utterances)


@pytest.fixture(scope="module")
def aligner() -> PocketSphinxAligner:
    return PocketSphinxAligner()


def audio(utterance: Utterance) -> Iterator[Tensor]:
    return iter(read_audio(utterance.path, 16_000).split(10_000))


def test_times_are_those_that_the_synthesiser_knows(
    aligner: PocketSphinxAligner, utterances: list[Utterance]
) -> None:
    errors = []
    for utterance in utterances[::8]:
        found = aligner.align(utterance, audio(utterance))
        assert utterance.words is not None
        for mine, true in zip(found.words, utterance.words, strict=True):
            assert mine.word == true.word
            assert None not in (mine.start, mine.end, true.start, true.end)
            errors += [abs(mine.start - true.start), abs(mine.end - true.end)]
    assert np.median(errors) < 0.02
    assert np.mean(errors) < 0.03


def test_an_alignment_does_not_depend_on_what_was_aligned_before(
    aligner: PocketSphinxAligner, utterances: list[Utterance]
) -> None:
    some = utterances[10:13]
    forwards = [aligner.align(utterance, audio(utterance)) for utterance in some]
    backwards = [aligner.align(utterance, audio(utterance)) for utterance in reversed(some)]
    assert forwards == backwards[::-1]


def test_what_cannot_be_pronounced_is_not_placed(
    aligner: PocketSphinxAligner, utterances: list[Utterance]
) -> None:
    utterance = utterances[0]
    right = aligner.align(utterance, audio(utterance)).words
    written = (utterance.text or "").split()
    assert len(written) > 5 and all(word.placed for word in right)

    def align(words: list[str], by: PocketSphinxAligner = aligner) -> tuple[Word, ...]:
        return by.align(Utterance("x", "-", " ".join(words)), audio(utterance)).words

    # A dash takes no time.
    dashed = align([*written[:2], "--", *written[2:]])
    assert dashed == (*right[:2], Word("--", None, None), *right[2:])
    # An unknown word is stepped over: the others stay where they are, but for the phones that it is taken to have.
    letters = written[3].lower().strip(".,")
    unknown = [*written[:3], letters + "zq", *written[4:]]
    found = align(unknown)
    assert found[3] == Word(letters + "zq", None, None)
    for mine, true in zip(found[:3] + found[4:], right[:3] + right[4:], strict=True):
        assert (mine.start, mine.end) == pytest.approx((true.start, true.end), abs=0.1)
    # With its phones at hand it is placed.
    phones = aligner._decoder.lookup_word(letters).split()
    knowing = PocketSphinxAligner(lambda word: phones)
    assert [w._replace(word="") for w in align(unknown, knowing)] == [w._replace(word="") for w in right]
    # Digits may be said in many ways, and their sound goes to whoever is beside.
    found = align([*written[:3], "3", *written[4:]])
    assert [word.placed for word in found] == [not 2 <= n <= 4 for n in range(len(written))]


def test_what_cannot_be_aligned_says_why(aligner: PocketSphinxAligner, utterances: list[Utterance]) -> None:
    utterance = utterances[0]
    right = aligner.align(utterance, audio(utterance))
    wrong = "Seventeen extraordinary elephants marched through Philadelphia on Wednesday morning."
    try:
        found = aligner.align(Utterance("x", "-", wrong), audio(utterance))
        assert right.score is not None and found.score is not None and found.score < 2 * right.score
    except AlignmentError as error:
        assert "does not sound like its text" in str(error)
    with pytest.raises(AlignmentError, match="aligns English, and this is 'de'"):
        aligner.align(Utterance("x", "-", "Ja.", language="de"), audio(utterance))
    with pytest.raises(AlignmentError, match="no word of the transcript can be pronounced"):
        aligner.align(Utterance("x", "-", "12 -- Я"), audio(utterance))
    with pytest.raises(AlignmentError, match="longer than 300 s"):
        aligner.align(utterance, iter([torch.zeros(16_000 * 60)] * 6))
