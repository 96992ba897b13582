"""The language model's shape: one dial, a named size, or every field of a transformers config."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from codec.foundation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from slm.vocabulary import Vocabulary

# layers, hidden size: the dial's defaults (64 wide a layer) where a size has no reason to differ.
SIZES: dict[str, tuple[int, int]] = {
    "nano": (4, 256),
    "tiny": (6, 384),
    "small": (12, 768),
    "medium": (24, 1024),
    "large": (28, 2048),
}
_WIDTH_PER_LAYER = 64


@dataclass
class ModelConfig:
    """Shape and regularisation of a new causal language model.

    Set `layers` alone and everything else follows (width 64 a layer, heads of 64, a gated MLP of 8/3 of the
    width); or name a `size`; or give `config`, any fields of the family's transformers config, which win over
    the rest.
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


def transformers_config(
    model: ModelConfig, vocabulary: "Vocabulary", dtype: str = "float32"
) -> "PreTrainedConfig":
    """The transformers config of a model over this vocabulary.

    Raises UserError for fields that do not fit together.
    """
    from transformers import LlamaConfig, Qwen3Config

    layers, width = SIZES[model.size] if model.size else (model.layers, None)
    hidden = model.hidden_size or width or _WIDTH_PER_LAYER * layers
    if hidden % model.head_dim:
        raise UserError(
            f"model.hidden_size {hidden} is not a multiple of model.head_dim {model.head_dim}: change one of them"
        )
    heads = hidden // model.head_dim
    key_value_heads = model.key_value_heads or heads
    if heads % key_value_heads:
        raise UserError(f"model.key_value_heads {key_value_heads} does not divide the {heads} heads")
    fields: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": hidden,
        "intermediate_size": model.intermediate_size or max(64, round(hidden * 8 / 3 / 64) * 64),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "tie_word_embeddings": model.tie_embeddings,
        "attention_dropout": model.attention_dropout,
        "attention_bias": False,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "dtype": dtype,
    }
    given = dict(model.config or {})
    clash = {"vocab_size", "model_type"} & given.keys()
    if clash:
        raise UserError(
            f"model.config may not set {', '.join(sorted(clash))}: these follow from the vocabulary"
        )
    kind = LlamaConfig if model.family == "llama" else Qwen3Config
    try:
        return kind(**(fields | given))
    except (TypeError, ValueError) as error:
        raise UserError(f"model.config does not make a {model.family} model: {error}") from error
