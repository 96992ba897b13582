"""What is to be spoken, the recordings that it is compared with, and how alike the voices are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from codec.foundation import UserError
from codec.metrics import Column, SpeakerEmbedder, normalize_transcript
from data import AudioError, Utterance, read_audio

_MOST_RECORDINGS = 20  # of a voice


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


class VoiceLikeness:
    """Mean cosine of a recording's speaker embedding with those of a voice's reference recordings, -1 to 1.

    Only with references that say something else: so a recording itself, a recording through the codec and a model's
    speech are all compared with the same kind of thing.
    """

    column = Column("speaker_similarity", "speaker similarity", "higher")

    def __init__(self, embedder: SpeakerEmbedder, references: References, gain: float = 1.0):
        """References are taken times `gain`."""
        self._embedder, self._references, self._gain = embedder, references, gain
        self._voices: dict[str, list[tuple[str, Tensor]]] = {}

    def __call__(self, waveform: Tensor, sampling_rate: int, voice: str | None, text: str) -> float:
        """Of (samples,) that say `text`; NaN below half a second, and for a voice without other recordings."""
        said = normalize_transcript(text)
        others = [] if voice is None else [e for spoken, e in self._of(voice) if spoken != said]
        embedding = self._embedder.embed(waveform, sampling_rate) if others else None
        if embedding is None:
            return float("nan")
        return sum(float(other @ embedding) for other in others) / len(others)

    def _of(self, voice: str) -> list[tuple[str, Tensor]]:
        """What each reference of a voice says, normalised, and its embedding."""
        if voice not in self._voices:
            made = ((u, self._embedding(u)) for u in self._references.of(voice, _MOST_RECORDINGS))
            self._voices[voice] = [(normalize_transcript(u.text or ""), e) for u, e in made if e is not None]
        return self._voices[voice]

    def _embedding(self, utterance: Utterance) -> Tensor | None:
        rate = self._embedder.sampling_rate
        try:
            return self._embedder.embed(read_audio(utterance.path, rate) * self._gain, rate)
        except AudioError:
            return None


def _from_json(line: str, where: str, number: str) -> Sentence:
    try:
        row = json.loads(line)
        return Sentence(str(row.get("id", number)), str(row["text"]))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f'{where}: expected an object like {{"id": "a1", "text": "Hello."}} ({error})'
        ) from None
