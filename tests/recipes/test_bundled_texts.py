"""The texts of the synthetic corpora: our grammar, the cutting of books, the evaluation sentences."""

import re
import struct
import zlib
from itertools import islice

import pytest

from recipes.bundled.books import clauses, read_novels
from recipes.bundled.grammar import Grammar, Word, finish, read_lexicon, read_rules
from recipes.bundled.sample_corpus import SENTENCES
from recipes.bundled.texts import Sources, collect, evaluation_sentences, normalized


@pytest.mark.parametrize(
    ("entry", "verb", "forms"),
    [
        ("stop", True, {"s": "stops", "ed": "stopped", "en": "stopped", "ing": "stopping"}),
        ("cook", True, {"ed": "cooked", "ing": "cooking"}),
        ("fix", True, {"s": "fixes", "ed": "fixed", "ing": "fixing"}),
        ("prefer!", True, {"s": "prefers", "ed": "preferred", "ing": "preferring"}),
        ("open", True, {"ed": "opened", "ing": "opening"}),
        (
            "lie_down/lay_down/lain_down",
            True,
            {"s": "lies down", "ed": "lay down", "en": "lain down", "ing": "lying down"},
        ),
        ("quit/quit", True, {"ed": "quit", "en": "quit", "ing": "quitting"}),
        ("cry", True, {"s": "cries", "ed": "cried", "ing": "crying"}),
        ("play", True, {"s": "plays", "ed": "played"}),
        ("see/saw/seen", True, {"s": "sees", "ed": "saw", "en": "seen", "ing": "seeing"}),
        ("go/went/gone", True, {"s": "goes", "ing": "going"}),
        ("write_about/wrote_about/written_about", True, {"s": "writes about", "ing": "writing about"}),
        ("wolf/wolves", False, {"s": "wolves"}),
        ("piano", False, {"s": "pianos"}),
        ("cherry", False, {"s": "cherries"}),
        ("wedding_ring", False, {"s": "wedding rings", None: "wedding ring"}),
        ("bench", False, {"s": "benches"}),
    ],
)
def test_inflection(entry, verb, forms):
    word = Word.parse(entry, verb)
    assert {form: word.form(form) for form in forms} == forms


def test_articles_and_capitals():
    assert finish("a old man has a hour and a umbrella") == "An old man has an hour and an umbrella"
    assert finish("an useful unicorn is a honest one") == "A useful unicorn is an honest one"
    assert finish('he said, "look at a ox."') == 'He said, "Look at an ox."'


def test_every_slot_of_the_grammar_names_something():
    rules, lexicon = read_rules(), read_lexicon()
    known = set(rules) | set(lexicon)
    known |= {"name", "he", "his", "him", "himself"}
    known |= {f"pro{part}" for part in ("", "_his", "_him", "_self", "_was", "_is", "_has", "_does")}
    slots = {
        (name, form)
        for texts in rules.values()
        for text in texts
        for name, form in re.findall(r"\{(\w*)\+?(\w*)\}", text)
    }
    assert {name for name, _ in slots} <= known
    assert {form for _, form in slots} <= {"", "s", "ed", "en", "ing"}
    assert not set(rules) & set(lexicon)


def test_sentences_are_seeded_distinct_and_speakable():
    sentences = list(islice(Grammar(7).sentences(), 1500))
    assert sentences == list(islice(Grammar(7).sentences(), 1500))
    assert sentences[:20] != list(islice(Grammar(8).sentences(), 20))
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert 4 <= len(sentence.split()) <= 16
        assert re.fullmatch(r"\"?[A-Z][A-Za-z' ,.?!\"-]*[.?!]\"?", sentence), sentence
        assert (
            not re.search(r"\b[Aa] [aei]\w*|\b[Aa]n [^aeiouhAEIO\"]", sentence) or "European" in sentence
        ), sentence


def test_the_choice_of_words_is_balanced():
    """A category's words are used about equally often, where chance alone would leave some out."""
    words = [word.base for word in read_lexicon()["person"]]
    text = " ".join(islice(Grammar(3).sentences(), 3000)).lower()
    counts = [len(re.findall(rf"\b{word}\b", text)) for word in words]
    assert sum(count == 0 for count in counts) < len(words) * 0.01


def test_clauses_of_books():
    passages = [
        "He said -- Mr. Bennet was out -- that they _must_ go (all of them). It rained.",
        "And the LORD spake unto Moses, saying, Speak unto the children of Israel, and bid them that they make "
        "them fringes in the borders of their garments for ever: Amen.",
        "CHAPTER XII",
        "In 1811 there were three of them.",
    ]
    assert list(clauses(passages)) == [
        "He said, Mr. Bennet was out, that they must go, all of them.",
        "And the Lord spake unto Moses, saying, Speak unto the children of Israel.",
        "And bid them that they make them fringes in the borders of their garments for ever.",
    ]


def test_novels_are_read_from_r_data(tmp_path):
    def chunk(lines):
        data = b"X\n" + struct.pack(">iii", 3, 0x00040201, 0x00030500) + struct.pack(">ii", 16, len(lines))
        for line in lines:
            data += struct.pack(">ii", 0x00040009, len(line)) + line.encode()
        return struct.pack(">I", len(data)) + zlib.compress(data)

    path = tmp_path / "Rdata.rdb"
    path.write_bytes(chunk(["EMMA", "", "Emma was", "clever.", ""]) + chunk(["She was happy."]))
    assert read_novels(path) == ["EMMA", "Emma was clever.", "She was happy."]


def test_evaluation_sentences_are_nowhere_else():
    sentences = evaluation_sentences()
    assert len({normalized(sentence) for sentence in sentences}) == 20
    assert all(6 <= len(sentence.split()) <= 12 for sentence in sentences)
    texts = {normalized(row["text"]) for row in collect(Sources(everyday=2000), seed=1)}
    texts |= {normalized(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()}
    assert not texts & {normalized(sentence) for sentence in sentences}


def test_texts_are_distinct_and_have_ids_in_order():
    rows = collect(Sources(everyday=300), seed=4)
    assert [row["id"] for row in rows] == [f"text-{k:06d}" for k in range(300)]
    assert len({normalized(row["text"]) for row in rows}) == 300
    assert rows != collect(Sources(everyday=300), seed=5)
