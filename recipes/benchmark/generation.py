"""A speech language model speaking: seconds of speech a second of computing, its codec included."""

import statistics
from dataclasses import dataclass

_SENTENCES = (
    "The tide was low, and the boats lay on their sides.",
    "She opened the window and listened to the rain.",
    "The next train to the city leaves in twenty minutes.",
)


@dataclass(frozen=True)
class GenerationTiming:
    """Multiples of real time, a sentence each."""

    model: str
    rounds: tuple[float, ...]

    @property
    def real_time(self) -> float:
        """The median over sentences."""
        return statistics.median(self.rounds)


def time_generation(model: str, device: str) -> GenerationTiming:
    """Let a model say some sentences, one by one, after one that does not count."""
    from slm import SpeechLM

    speaker = SpeechLM.from_pretrained(model, device=device)
    speaker.speak(_SENTENCES[0], seed=0)
    rounds = []
    for number, sentence in enumerate(_SENTENCES):
        result = speaker.speak(sentence, seed=number)
        if result.seconds:
            rounds.append(1.0 / result.real_time_factor)
    return GenerationTiming(model, tuple(rounds))
