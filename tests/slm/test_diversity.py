"""auto-BLEU by its definition, self-BLEU beside nltk and sacrebleu, VERT of texts whose diversity is known."""

import math
import random

import pytest

from slm.evaluation.metrics import auto_bleu, self_bleu, vert


def texts(count: int, seed: int = 0) -> list[list[str]]:
    drawn = random.Random(seed)
    words = ["the", "cat", "dog", "sat", "ran", "on", "under", "a", "mat", "and", "then", "it", "was", "gone"]
    return [[drawn.choice(words) for _ in range(drawn.randint(6, 14))] for _ in range(count)]


def slow_auto_bleu(words: list[str]) -> float:
    """Of each n-gram: is it in the words before it, or in those after it?"""
    shares = []
    for length in (1, 2):
        hits = []
        for start in range(len(words) - length + 1):
            gram, before, after = words[start : start + length], words[:start], words[start + length :]
            hits.append(
                any(
                    side[place : place + length] == gram
                    for side in (before, after)
                    for place in range(len(side))
                )
            )
        shares.append(sum(hits) / len(hits))
    return math.sqrt(shares[0] * shares[1])


def test_auto_bleu() -> None:
    assert auto_bleu(["one", "two", "three", "four"]) == 0.0
    assert auto_bleu(["again", "and", "again", "and", "again"]) == pytest.approx(1.0)
    # the, cat twice of six words; "the cat" twice of five pairs
    assert auto_bleu(["the", "cat", "saw", "the", "cat", "run"]) == pytest.approx(math.sqrt(4 / 6 * 2 / 5))
    # the pairs of three words overlap; of four, the first and the last do not
    assert auto_bleu(["ha"] * 3) == 0.0 < auto_bleu(["ha"] * 4)
    for words in [*texts(20), *([word for word in words for _ in range(3)] for words in texts(5))]:
        assert auto_bleu(words) == pytest.approx(slow_auto_bleu(words))
    assert math.isnan(auto_bleu(["alone"])) and math.isnan(auto_bleu([]))


def test_self_bleu_is_that_of_nltk_and_sacrebleu() -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    sacrebleu = pytest.importorskip("sacrebleu")
    corpus = texts(8)
    corpus[3] = corpus[2][:]  # a copy: everything of it is elsewhere
    scores = self_bleu(corpus)
    assert scores[2] == scores[3] == 1.0
    for number, (words, score) in enumerate(zip(corpus, scores, strict=True)):
        others = corpus[:number] + corpus[number + 1 :]
        shares = [float(bleu.modified_precision(others, words, length)) for length in (1, 2)]
        assert score == pytest.approx(math.sqrt(shares[0] * shares[1]), abs=1e-12)
        scorer = sacrebleu.metrics.BLEU(
            tokenize="none", smooth_method="none", max_ngram_order=2, effective_order=True
        )
        found = scorer.sentence_score(" ".join(words), [" ".join(other) for other in others])
        percent = math.sqrt(found.precisions[0] * found.precisions[1])
        assert 100 * score == pytest.approx(percent, abs=1e-9)


def test_what_has_no_self_bleu() -> None:
    assert all(map(math.isnan, self_bleu([["a", "b", "c"]])))
    scores = self_bleu([["a", "b"], [], ["a", "b"], ["c"]])
    assert scores[0] == scores[2] == 1.0 and math.isnan(scores[1]) and math.isnan(scores[3])


def test_a_babbling_model_has_a_higher_vert() -> None:
    def of(corpus: list[list[str]]) -> tuple[float, float]:
        autos, among = [auto_bleu(words) for words in corpus], self_bleu(corpus)
        return sum(autos) / len(autos), sum(among) / len(among)

    various = [first + second for first, second in zip(texts(10), texts(10, seed=1), strict=True)]
    assert of([words[:3] * 8 for words in various])[0] > of(various)[0]
    assert of([various[0]] * 10)[1] == 1.0 > of(various)[1]
    assert vert(0.04, 0.25) == pytest.approx(0.1)
    assert vert(*of([words[:3] * 8 for words in various])) > vert(*of(various))
