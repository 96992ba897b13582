"""What documents a language model is trained on."""

from dataclasses import dataclass, field, replace

from codec.foundation import UserError
from slm.documents.spans import InterleavedConfig


@dataclass(frozen=True)
class DocumentConfig:
    """The documents of a training run."""

    formats: dict[str, float] = field(default_factory=lambda: {"tts": 0.75, "speech": 0.15, "asr": 0.1})
    """Weight of each format by name (`speech`, `text`, `tts`, `asr`, `aligned`, `interleaved`). They need
    not sum to 1. A row that lacks what its format needs takes the nearest that it can: `aligned` and
    `interleaved` become `tts`, and without text `speech`."""
    text_loss_weight: float = 0.1
    """Loss weight of the text that speech is conditioned on, in `tts` and `aligned`; 0: no loss on it."""
    speech_loss_weight: float = 0.1
    """Loss weight of the speech that text is conditioned on, in `asr`; 0: no loss on it."""
    prompt_loss_weight: float = 0.0
    """Loss weight of the tokens of a prompt utterance."""
    corruption: float = 0.05
    """Share of the input speech tokens that are replaced by random ones; the targets stay as they were."""
    voice_tag_probability: float = 0.9
    """How often a document of a speaker with a tag begins with it (`speech`, `tts`, `aligned`,
    `interleaved`)."""
    prompt_probability: float = 0.0
    """How often another utterance of the same speaker stands before a document (`tts`, `aligned`)."""
    prompt_text_probability: float = 0.9
    """How often that utterance comes with its text."""
    prompt_seconds: float = 10.0
    """Longest prompt utterance; a document that drew a longer one has none."""
    min_words: int = 1
    """Fewest words in a span of `aligned`; the number is drawn evenly for each span."""
    max_words: int = 4
    """Most words in a span of `aligned`."""
    interleaved: InterleavedConfig = field(default_factory=InterleavedConfig)
    """The spans of `interleaved`."""

    def __post_init__(self) -> None:
        if not self.formats or min(self.formats.values()) < 0 or sum(self.formats.values()) <= 0:
            raise UserError(
                f"formats: {self.formats} are no weights; give at least one format a weight above 0"
            )
        for name in ("corruption", "voice_tag_probability", "prompt_probability", "prompt_text_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: {getattr(self, name)} is no probability; give a number from 0 to 1")
        for name in ("text_loss_weight", "speech_loss_weight", "prompt_loss_weight", "prompt_seconds"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: {getattr(self, name)} is below 0")
        if not 1 <= self.min_words <= self.max_words:
            raise UserError(
                f"min_words and max_words: {self.min_words} to {self.max_words} is no range of words"
            )

    def without_noise(self) -> "DocumentConfig":
        """The same documents with every input token as it is: for validation."""
        return replace(self, corruption=0.0)
