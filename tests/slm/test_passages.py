"""Texts in passages: nothing lost, nothing longer than may be, cut where a reader would pause."""

from hypothesis import given
from hypothesis import strategies as st

from slm.generation.planning import cut_passages, split_sentences

TEXT = 'Mr. Finch went home. "Why?" she asked. It rained, and it rained; nobody came... He lived in St. Ives.  So!'


def test_sentences_end_where_a_reader_ends_them():
    assert split_sentences(TEXT) == [
        "Mr. Finch went home. ",
        '"Why?" ',
        "she asked. ",
        "It rained, and it rained; nobody came... ",
        "He lived in St. Ives.  ",
        "So!",
    ]
    assert split_sentences("") == [] and split_sentences("At 3.5 m, A. B. Smith fell") == [
        "At 3.5 m, A. B. Smith fell"
    ]
    assert split_sentences("雨が降る。誰も来ない。") == ["雨が降る。", "誰も来ない。"]


def test_passages_take_sentence_after_sentence():
    def at_most(count):
        return lambda piece: len(piece) <= count

    assert cut_passages(TEXT, at_most(1000)) == [TEXT]
    assert cut_passages("One two. Three. Four five six.", at_most(17)) == [
        "One two. Three. ",
        "Four five six.",
    ]
    assert cut_passages("aaaaaaaaaa bb", at_most(4)) == ["aaaa", "aaaa", "aa", " bb"]
    assert cut_passages("Hi. ...", at_most(4)) == ["Hi. ..."]


@given(st.text(alphabet=' \n.,;!?"ab3。', max_size=60), st.integers(1, 20))
def test_nothing_is_lost_and_all_that_sounds_fits(text, most):
    passages = cut_passages(text, lambda piece: len(piece.strip()) <= most)
    assert "".join(passages) == text
    for passage in passages:
        if len(passages) > 1:
            assert any(map(str.isalnum, passage))
        # marks that nobody speaks may make a passage longer
        assert sum(map(str.isalnum, passage)) <= most
