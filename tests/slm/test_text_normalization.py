"""Written text to spoken words: pairs written by hand, plain text untouched, nothing lost without a word about it."""

import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import recipes.bundled
from codec.foundation import UserError
from recipes.evaluation.sentences import read_sentences
from slm.generation.planning import spoken_form
from slm.text_normalization import LANGUAGES, normalize, speakable
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import codec_info, train_text_model

SENTENCES = Path(recipes.bundled.__file__).parent / "evaluation_sentences.txt"
PAIRS = [
    line.split("\t") for line in (Path(__file__).parent / "spoken_pairs.tsv").read_text("utf-8").splitlines()
]


def words(text: str) -> list[str]:
    """What two texts share that sound the same: words without marks, case and the "and" of numbers."""
    text = re.sub(r"[^\w\s']", " ", text.casefold().replace("’", "'")).replace("'", "")
    return [word for word in text.split() if word not in ("and", "und")]


def test_pairs_of_written_and_spoken_text() -> None:
    """language, kind, written, spoken; several spoken forms stand between |. The goal is 97 %."""
    assert len(PAIRS) >= 800
    right: Counter[str] = Counter()
    wrong = []
    for language, kind, written, spoken in PAIRS:
        said = normalize(written, language)
        if words(said) in map(words, spoken.split("|")):
            right[language] += 1
        else:
            wrong.append((language, kind, written, said))
    counts = Counter(language for language, *_ in PAIRS)
    for language in LANGUAGES:
        assert right[language] >= 0.97 * counts[language], wrong


def test_no_digit_is_left_and_what_is_spoken_stays() -> None:
    for language, _, written, _ in PAIRS:
        said = normalize(written, language)
        assert not re.search(r"\d", said), (written, said)
        assert words(normalize(said, language)) == words(said), written


def test_plain_sentences_come_back_as_they_are() -> None:
    plain = [
        sentence.text
        for sentence in read_sentences(SENTENCES)
        if not re.search(r"\d|Mr|Dr|[A-Z]{2}|’", sentence.text)
    ]
    assert len(plain) >= 20
    for text in [*plain, " Well,  I see. ", "I, too, go. No!", "It's O'Neill's co-op."]:
        assert normalize(text) == text


@given(st.text(), st.sampled_from(LANGUAGES))
def test_no_text_breaks_the_rules(text: str, language: str) -> None:
    normalize(text, language)


@given(st.text(alphabet="0123456789.,:-/€$% ", max_size=20), st.sampled_from(LANGUAGES))
def test_no_number_breaks_the_rules(text: str, language: str) -> None:
    assert not re.search("[0-9]", normalize(text, language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_work_grows_with_the_length_alone(language: str) -> None:
    started = time.process_time()
    for run in ("1", "a.", "V", "ABC ", "1.", "1/"):
        normalize(run * 8_000, language)
    assert time.process_time() - started < 3


def test_a_language_without_rules_is_refused() -> None:
    with pytest.raises(UserError, match="en, de, not in 'fr'"):
        normalize("3", "fr")


def test_characters_that_a_model_does_not_know_are_folded_or_named() -> None:
    knows = set("abcdefghijklmnopqrstuvwxyzAE .,").__contains__
    assert speakable("Ab.", knows) == ("Ab.", [])
    assert speakable("café Élan X", knows) == ("cafe Elan x", [])  # without its accent; in the other case
    assert speakable("Weiß", {*"Weis", "S"}.__contains__) == ("Weiss", [])
    assert speakable("yes—no (or so)", knows) == ("yes,no or so ", [])  # marks are not missed
    assert speakable("love ❤️ and 愛 愛", knows) == ("love and ", ["❤", "愛"])
    assert speakable("a👍🏽b", lambda character: True) == ("a b", ["👍"])


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return Vocabulary.build(train_text_model(tmp_path_factory.mktemp("text"), "char"), codec_info((40,)))


def test_blank_lines_and_marks_are_pauses(vocabulary: Vocabulary) -> None:
    form = spoken_form(
        "One.\n\nTwo. [pause 1.5]\n[Pause 0.5 s] Three.\nFour. [pause 99] 5 [pause 1]", vocabulary, "en"
    )
    assert [text.lower() for text in form.stretches] == ["one.", "two.", "three.\nfour.", "five"]
    assert form.pauses == [0.0, 0.6, 2.0, 10.0]
    assert spoken_form("3 a", vocabulary, "en").text == "three a"
    for language in (None, "fr"):  # as it is written: this model knows no digits
        assert spoken_form("3 a", vocabulary, language).lost == ["3"]
