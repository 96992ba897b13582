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

    # A causal language model with a fast tokenizer: directory, hub id, name of a bundled model, or a training run.
    model: str
    # Where the speech tokens' embeddings start. keep: from the speech model's own; codebook: from a random projection
    # of the codec's effective codebook, with the mean and scale of the embeddings that are there; mean: from the mean
    # of those; map: from those of the codes that `code_map` names. Unset: keep where the model speaks the datasets'
    # codec, else codebook.
    speech_embeddings: Literal["keep", "codebook", "mean", "map"] | None = None
    # For a speech model whose codec changed: a .npy file that says for each new code which old one it sounds like,
    # (codes,) integers, or how much of each, (codes, old codes), rows summing to 1. `codec-slm map-codes` makes it.
    code_map: str | None = None

    def __post_init__(self) -> None:
        if self.speech_embeddings not in (None, "keep", "codebook", "mean", "map"):
            raise UserError(
                f"unknown start_from.speech_embeddings {self.speech_embeddings!r}: choose keep, codebook, mean or map"
            )
        if (self.speech_embeddings == "map") != (self.code_map is not None):
            raise UserError("start_from.speech_embeddings map and start_from.code_map go together: give both")


@dataclass
class TuningConfig:
    """Which weights of a pretrained model learn; what does not learn all of them saves an adapter (PEFT).

    full: all. lora: low-rank additions to the decoder's matrices (arXiv 2106.09685), and the rows of all tokens that
    are no text. embeddings: those rows alone, so that the model learns what speech tokens mean before anything else.
    """

    mode: Literal["full", "lora", "embeddings"] = "full"
    rank: int = 16
    alpha: int = 32  # what the low-rank product is scaled by, times 1 / rank
    dropout: float = 0.0  # on what goes into the low-rank additions
    target_modules: list[str] | None = None  # names of the matrices; unset: all of the decoder's

    def __post_init__(self) -> None:
        if self.mode not in ("full", "lora", "embeddings"):
            raise UserError(f"unknown tuning.mode {self.mode!r}: choose full, lora or embeddings")
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                "tuning.rank is at least 1, tuning.alpha above 0, tuning.dropout from 0 to below 1"
            )
