"""Whether speech is in the voice that it should be in: speaker similarity to recordings of that voice."""

from torch import Tensor

from codec.metrics import Column, SpeakerEmbedder, normalize_transcript
from data import AudioError, Utterance, read_audio
from recipes.evaluation.sentences import References

_MOST_RECORDINGS = 20  # of a voice


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
