"""What a run starts from, if not from fresh weights, and which of its weights learn."""

from dataclasses import dataclass
from typing import Literal

from codec.foundation import UserError


@dataclass
class StartConfig:
    """Go on from a pretrained model: a text language model (as in TWIST, arXiv 2305.13009) or one of ours.

    Its tokenizer is extended by control tokens, voice tags and speech tokens, unless it has them; tokens that it
    knows keep their embeddings. What else it can read it goes on reading: no text token changes its number.
    """

    model: str
    """A causal language model with a fast tokenizer: directory, hub id, name of a bundled model, or a
    training run."""
    speech_embeddings: Literal["keep", "codebook", "mean", "map"] | None = None
    """Where the speech tokens' embeddings start. keep: from the speech model's own; codebook: from a
    random projection of the codec's effective codebook, with the mean and scale of the existing
    embeddings; mean: from the mean of those; map: from those of the codes that `code_map` names. Unset:
    keep where the model speaks the datasets' codec, else codebook."""
    code_map: str | None = None
    """For a speech model whose codec changed: a .npy file with the old code that each new code sounds
    like, (codes,) integers, or the share of each old code, (codes, old codes), rows summing to 1.
    `codec-slm map-codes` makes it."""

    def __post_init__(self) -> None:
        if self.speech_embeddings not in (None, "keep", "codebook", "mean", "map"):
            raise UserError(
                f"unknown start_from.speech_embeddings {self.speech_embeddings!r}: choose keep, codebook, mean or map"
            )
        if (self.speech_embeddings == "map") != (self.code_map is not None):
            raise UserError("start_from.speech_embeddings map and start_from.code_map go together: give both")


@dataclass
class TuningConfig:
    """Which weights of a pretrained model learn. Every mode but full saves an adapter (PEFT)."""

    mode: Literal["full", "lora", "embeddings"] = "full"
    """full: all weights. lora: low-rank additions to the decoder's matrices (arXiv 2106.09685), and the
    embeddings of all tokens that are not text. embeddings: those embeddings alone, so that the model first
    learns what speech tokens mean."""
    rank: int = 16
    """Rank of the additions."""
    alpha: int = 32
    """The low-rank product is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the input of the low-rank additions."""
    target_modules: list[str] | None = None
    """Names of the matrices; unset: all of the decoder's."""

    def __post_init__(self) -> None:
        if self.mode not in ("full", "lora", "embeddings"):
            raise UserError(f"unknown tuning.mode {self.mode!r}: choose full, lora or embeddings")
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                "tuning.rank is at least 1, tuning.alpha above 0, tuning.dropout from 0 to below 1"
            )
