"""Which texts a run trains on beside speech."""

from dataclasses import dataclass

from codec.foundation import UserError


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
