"""The manifest's lines, as `data.open_corpus` reads them."""

import json
from collections.abc import Sequence

from data.corpora import Word
from recipes.bundled.flite import TimedWord


def manifest_line(
    id: str,
    audio: str,
    text: str,
    speaker: str,
    split: str,
    words: Sequence[TimedWord | Word] | None,
    language: str = "en",
) -> str:
    """One utterance as a line of JSON; `words` of None says that no word times are known."""
    row = {
        "id": id,
        "audio": audio,
        "text": text,
        "speaker": speaker,
        "language": language,
        "split": split,
        "words": None
        if words is None
        else [[word.word, _rounded(word.start), _rounded(word.end)] for word in words],
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
