"""Settings of language models: their shape, what they start from, and which of their weights learn."""

from dataclasses import dataclass
from typing import Any, Literal

from codec.foundation import UserError

# layers, hidden size: the dial's defaults (64 wide a layer) where a size has no reason to differ.
SIZES: dict[str, tuple[int, int]] = {
    "nano": (4, 256),
    "tiny": (6, 384),
    "small": (12, 768),
    "medium": (24, 1024),
    "large": (28, 2048),
}
WIDTH_PER_LAYER = 64


@dataclass
class ModelConfig:
    """Shape and regularisation of a new causal language model.

    `layers` alone decides everything (width 64 a layer, heads of 64, a gated MLP of 8/3 of the width). Or name a
    `size`, or give `config`: fields of the family's transformers config, which win over the rest.
    """

    family: Literal["llama", "qwen3"] = "llama"
    """Architecture, as transformers calls it."""
    size: Literal["nano", "tiny", "small", "medium", "large"] | None = None
    """A named shape; unset: `layers` and `hidden_size` decide."""
    layers: int = 6
    """Transformer blocks."""
    hidden_size: int | None = None
    """Width; unset: 64 x layers."""
    head_dim: int = 64
    """Width of an attention head."""
    key_value_heads: int | None = None
    """Heads of keys and values; unset: as many as query heads; fewer share them (GQA)."""
    intermediate_size: int | None = None
    """Width of the MLP; unset: 8/3 of the width, a multiple of 64."""
    max_positions: int = 2048
    """Longest document, in tokens, that can be read or spoken."""
    rope_theta: float = 10_000.0
    """Base of the rotary position embedding."""
    tie_embeddings: bool = True
    """The output layer shares the input embeddings."""
    speech_embeddings: Literal["random", "codebook"] = "codebook"
    """Where the speech tokens' embeddings start: drawn at random, or a random projection of the codec's
    effective codebook, so that codes that sound alike start alike."""
    dropout: float = 0.0
    """In training, on the embeddings and on what each block adds to the residual stream."""
    attention_dropout: float = 0.0
    """In training, on the attention weights."""
    config: dict[str, Any] | None = None
    """Fields of the family's transformers config; they win over the other settings."""

    def __post_init__(self) -> None:
        if self.family not in ("llama", "qwen3"):
            raise UserError(f"unknown model.family {self.family!r}: choose llama or qwen3")
        if self.size is not None and self.size not in SIZES:
            raise UserError(f"unknown model.size {self.size!r}: choose one of {', '.join(SIZES)}")
        if self.speech_embeddings not in ("random", "codebook"):
            raise UserError(
                f"unknown model.speech_embeddings {self.speech_embeddings!r}: choose random or codebook"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"model.{name} is {getattr(self, name)}: a share from 0 to below 1")
        if self.layers < 1 or self.head_dim < 2 or self.max_positions < 2:
            raise UserError(
                "model.layers must be at least 1, model.head_dim and model.max_positions at least 2"
            )


@dataclass
class StartConfig:
    """Go on from a pretrained model: a text language model (as in TWIST, arXiv 2305.13009) or one of ours.

    Its tokenizer is extended by control tokens, voice tags and speech tokens, unless it has them. Known tokens keep
    their embeddings, and text tokens their numbers.
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
