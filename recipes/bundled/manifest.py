"""The manifest's lines, as `data.open_corpus` reads them."""

import json
from collections.abc import Sequence

from recipes.bundled.flite import TimedWord


def manifest_line(
    id: str,
    audio: str,
    text: str,
    speaker: str,
    split: str,
    words: Sequence[TimedWord] | None,
    language: str = "en",
) -> str:
    """One utterance as a line of JSON; `words` of None says that the word times are not known."""
    row = {
        "id": id,
        "audio": audio,
        "text": text,
        "speaker": speaker,
        "language": language,
        "split": split,
        "words": None
        if words is None
        else [[word.word, round(word.start, 4), round(word.end, 4)] for word in words],
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
