"""Text as words that join to it again: where a text can be cut without knowing how it sounds."""

import re

_PIECE = re.compile(r"\s*\S+(?:\s+\Z)?")


def split_words(text: str) -> list[str]:
    """Cuts a text before the white space of every word; the pieces join to the text exactly.

    A piece is a word with its punctuation and the white space before it, as in `["Well,", " I", " see."]`;
    white space that ends the text stays with the last word. A text of white space alone is one piece, no text
    is none.
    """
    if not text or text.isspace():
        return [text] if text else []
    return _PIECE.findall(text)
