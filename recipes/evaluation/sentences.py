"""What is to be spoken, and the recordings of the same sentences that it is compared with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.foundation import UserError
from codec.metrics import normalize_transcript
from data import Utterance


@dataclass(frozen=True)
class Sentence:
    """One sentence to speak."""

    id: str
    text: str


def read_sentences(path: Path) -> list[Sentence]:
    """From a text file, one sentence a line, or a .jsonl file of objects with a `text` and perhaps an `id`.

    Empty lines are passed over. Raises UserError for a file that is missing, holds none, or has a line that does
    not fit.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a file with one sentence a line") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"{path}: not a text file ({error})") from None
    sentences = []
    for number, line in enumerate(content.splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        if path.suffix == ".jsonl":
            sentences.append(_from_json(line, f"{path}, line {number}", f"{number:04d}"))
        else:
            sentences.append(Sentence(f"{number:04d}", line))
    if not sentences:
        raise UserError(f"{path}: holds no sentence; give one a line")
    if len({sentence.id for sentence in sentences}) < len(sentences):
        raise UserError(f"{path}: two sentences have the same id; ids must be unique")
    return sentences


class References:
    """Recordings by what is said in them, after the normalisation of transcripts."""

    def __init__(self, utterances: Sequence[Utterance]):
        self._by_text: dict[str, list[Utterance]] = {}
        self._by_speaker: dict[str, list[Utterance]] = {}
        for utterance in utterances:
            if utterance.speaker:
                self._by_speaker.setdefault(utterance.speaker, []).append(utterance)
            if utterance.text:
                self._by_text.setdefault(normalize_transcript(utterance.text), []).append(utterance)

    def find(self, text: str, voice: str | None) -> Utterance | None:
        """The recording of `text` by `voice`; failing that, by whoever comes first; None where nobody says it."""
        spoken = self._by_text.get(normalize_transcript(text), [])
        return next((u for u in spoken if u.speaker == voice), spoken[0] if spoken else None)

    def of(self, speaker: str, most: int) -> list[Utterance]:
        """Recordings of a speaker, whatever they say: all, or `most` of them, evenly spread."""
        own = self._by_speaker.get(speaker, [])
        return own if len(own) <= most else [own[number * len(own) // most] for number in range(most)]


def _from_json(line: str, where: str, number: str) -> Sentence:
    try:
        row = json.loads(line)
        return Sentence(str(row.get("id", number)), str(row["text"]))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f'{where}: expected an object like {{"id": "a1", "text": "Hello."}} ({error})'
        ) from None
