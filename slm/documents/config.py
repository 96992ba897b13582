"""Settings of what a language model is trained on: documents, datasets of text, datasets to validate on."""

from dataclasses import dataclass, field, replace
from typing import Literal

from codec.foundation import UserError

SpanLengths = Literal["poisson", "uniform", "fixed"]


@dataclass(frozen=True)
class InterleavedConfig:
    """The spans of `interleaved` documents."""

    span_lengths: SpanLengths = "poisson"
    """Distribution of the words in a span: `poisson` (as in SIMS, arXiv 2504.02398; never 0), `uniform`
    (from 1 to 2 span_words - 1), or `fixed`."""
    span_words: float = 10.0
    """Mean number of words in a span of the modality with the smaller share; spans of the other are longer
    in proportion."""
    speech_share: float = 0.5
    """Probability that a word of known time is given as speech, the same at every place of a text. A word
    without a time always stays text."""
    switch_loss_weight: float = 1.0
    """Loss weight of the token that ends a span and begins one of the other modality."""

    def __post_init__(self) -> None:
        if self.span_lengths not in ("poisson", "uniform", "fixed"):
            raise UserError(
                f"interleaved.span_lengths: {self.span_lengths!r} is none of poisson, uniform, fixed"
            )
        if not 1 <= self.span_words <= 1000:
            raise UserError(
                f"interleaved.span_words: {self.span_words} is no mean length; give 1 to 1000 words"
            )
        if not 0.01 <= self.speech_share <= 0.99:
            raise UserError(
                f"interleaved.speech_share: {self.speech_share} is not from 0.01 to 0.99; for one modality alone "
                "there are the formats text and speech"
            )
        if self.switch_loss_weight < 0:
            raise UserError(f"interleaved.switch_loss_weight: {self.switch_loss_weight} is below 0")

    @property
    def mean_words(self) -> tuple[float, float]:
        """Mean words of a span of text, and of one of speech."""
        share = self.speech_share
        return self.span_words * max(1.0, (1 - share) / share), self.span_words * max(
            1.0, share / (1 - share)
        )


@dataclass(frozen=True)
class DocumentConfig:
    """The documents of a training run."""

    formats: dict[str, float] = field(default_factory=lambda: {"tts": 0.75, "speech": 0.15, "asr": 0.1})
    """Weight of each format by name (`speech`, `text`, `tts`, `asr`, `aligned`, `interleaved`). They need
    not sum to 1. A row that lacks what its format needs takes the nearest that it can: `aligned` and
    `interleaved` become `tts`, and without text `speech`; so does a row that is longer than a block and has no
    word times at which it could be cut into several. The first lines of a run count them, and a format that no
    row can become is an error."""
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


@dataclass
class TextDatasetConfig:
    """One dataset of text: any of Hugging Face's, whose texts become `text` documents.

    It is tokenized once, into a file that is mapped into memory (`$CODEC_SLM_CACHE`, else `~/.cache/codec-slm`). A text
    that is longer than a block becomes several documents.
    """

    path: str
    """A dataset on the hub, a directory (`save_to_disk`, or files), or a .txt (a text a line), .jsonl,
    .csv or .parquet."""
    name: str | None = None
    """Configuration of the dataset."""
    revision: str | None = None
    """Commit or tag of a dataset on the hub."""
    split: str = "train"
    """Split of the dataset."""
    column: str = "text"
    """Column with the texts."""
    weight: float | None = None
    """As a token dataset's."""
    decay_weight: float | None = None
    """As a token dataset's."""
    max_epochs: float | None = None
    """As a token dataset's."""
    max_tokens: int | None = None
    """Take this many tokens from its beginning, in whole texts."""
    streaming: bool = False
    """Read it while it is tokenized, without a copy on the disk."""

    def __post_init__(self) -> None:
        if min(self.weight or 0, self.decay_weight or 0) < 0:
            raise UserError(f"the weights of dataset {self.path} must be 0 or more")
        for name in ("max_epochs", "max_tokens"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"{name} of dataset {self.path} is {value}: it must be above 0")


@dataclass
class ValidationConfig:
    """One dataset that a run is validated on: a split of a token dataset or, with a `column`, of a text dataset."""

    path: str
    """The dataset."""
    split: str = "validation"
    """Split of the dataset."""
    column: str | None = None
    """Set: a text dataset, in one of the forms that `texts` takes."""
    name: str | None = None
    """Configuration of a text dataset."""
    voice: str | None = None
    """Voice of rows without a speaker."""
    formats: dict[str, float] | None = None
    """Weights of document formats; unset: those of the training documents."""
