"""Long texts in passages: whole sentences as long as they fit, so that no model has to read further than it can."""

import re
from collections.abc import Callable, Iterator

from slm.text.words import split_words

# what ends a sentence, with the quotes and brackets that close behind it; in scripts without spaces nothing follows
_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』）]*|\n\s*\n|\Z)\s*", re.DOTALL)
_CLAUSE = re.compile(r".+?(?:[,;:–—][\"'”’»)\]]*(?=\s)|[，、；：]|\Z)\s*", re.DOTALL)
# not the end of a sentence, though a full stop and a space follow
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|prof|vs|no|e\.g|i\.e|etc)|\b[A-Z])\.\s*\Z", re.IGNORECASE
)


def split_sentences(text: str) -> list[str]:
    """A text as sentences, white space behind them included: they join to the text exactly."""
    sentences: list[str] = []
    for piece in _SENTENCE.findall(text):
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += piece
        else:
            sentences.append(piece)
    return sentences


def cut_passages(text: str, fits: Callable[[str], bool]) -> list[str]:
    """A text as passages that fit, as few as can be had by taking sentence after sentence; they join to it exactly.

    A sentence that does not fit alone is cut behind a comma or the like, where that does not help between words, and
    at worst inside a word. What holds no letter or digit stays with its neighbour; a single character always passes.
    """
    passages: list[str] = []
    for piece in _fitting(text, fits, 0):
        joined = passages[-1] + piece if passages else piece
        silent = passages and not (_sounds(piece) and _sounds(passages[-1]))
        if passages and (silent or fits(joined)):
            passages[-1] = joined
        else:
            passages.append(piece)
    return passages


_CUTS: tuple[Callable[[str], list[str]], ...] = (split_sentences, _CLAUSE.findall, split_words, list)


def _fitting(text: str, fits: Callable[[str], bool], level: int) -> Iterator[str]:
    """The pieces of a text that fit, cut as coarsely as each allows."""
    for piece in _CUTS[level](text):
        if level + 1 == len(_CUTS) or fits(piece):
            yield piece
        else:
            yield from _fitting(piece, fits, level + 1)


def _sounds(text: str) -> bool:
    return any(map(str.isalnum, text))
