"""Which texts a run trains on beside speech."""

from dataclasses import dataclass

from codec.foundation import UserError


@dataclass
class TextDatasetConfig:
    """One dataset of text: any of Hugging Face's, whose texts become `text` documents.

    It is tokenized once, into a file that is mapped into memory (`$CODEC_SLM_CACHE`, else `~/.cache/codec-slm`). A text
    that is longer than a block becomes several documents. `weight`, `decay_weight` and `max_epochs` are those of a
    token dataset.
    """

    # A dataset on the hub, a directory (`save_to_disk`, or files), or a .txt (a text a line), .jsonl, .csv or .parquet.
    path: str
    name: str | None = None  # which of the dataset's configurations
    revision: str | None = None  # of a dataset on the hub: a commit or tag
    split: str = "train"
    column: str = "text"
    weight: float | None = None
    decay_weight: float | None = None
    max_epochs: float | None = None
    max_tokens: int | None = None  # take so many from its beginning; whole texts
    streaming: bool = False  # read it as it is tokenized, without a copy on the disk

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
    split: str = "validation"
    column: str | None = None  # set: a text dataset, in one of the forms that `texts` takes
    name: str | None = None  # which of a text dataset's configurations
    voice: str | None = None  # of rows that have no speaker
    formats: dict[str, float] | None = (
        None  # weights of document formats; unset: those of the training documents
    )
