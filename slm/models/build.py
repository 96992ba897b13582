"""New language models: their shape, how their weights start, and the dropout that only training sees."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from codec.foundation import UserError, first_line, seed_globals, torch_generator
from slm.models.config import SIZES, WIDTH_PER_LAYER, ModelConfig
from slm.vocabulary import Vocabulary


def transformers_config(
    model: ModelConfig, vocabulary: Vocabulary, dtype: str = "float32"
) -> PreTrainedConfig:
    """The transformers config of a model over this vocabulary.

    Raises UserError for fields that do not fit together.
    """
    layers, width = SIZES[model.size] if model.size else (model.layers, None)
    hidden = model.hidden_size or width or WIDTH_PER_LAYER * layers
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


def build_model(
    config: ModelConfig,
    vocabulary: Vocabulary,
    seed: int,
    codebooks: list[Tensor] | None = None,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A causal LM with fresh weights, the same for the same seed.

    codebooks: effective codebook (entries, dim) of each quantizer, for `speech_embeddings: codebook`.
    """
    seed_globals(seed, "model")
    shape = transformers_config(config, vocabulary)
    try:
        model = AutoModelForCausalLM.from_config(shape, attn_implementation=attention, dtype=torch.float32)
    except (ImportError, KeyError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"no {config.family} model can be made of this model.config and attention: {reason}"
        ) from error
    if config.speech_embeddings == "codebook":
        if codebooks is None:
            raise UserError(
                "model.speech_embeddings is codebook, but no codec was given: set codec, or say random"
            )
        start_from_codebooks(model, vocabulary, codebooks, torch_generator(seed, "speech embeddings"))
    if config.dropout:
        add_dropout(model, config.dropout)
    return model.to(dtype)


@torch.no_grad()
def start_from_codebooks(
    model: PreTrainedModel, vocabulary: Vocabulary, codebooks: list[Tensor], generator: torch.Generator
) -> None:
    """Set the speech tokens' rows to a random projection of their codebook entries.

    Entries are centred, and the result has the mean and deviation that the rows had, so that the first step sees
    numbers of the usual size. Output rows follow where they are tied to the input's, and are set likewise where
    they are not.
    """
    weights = _token_weights(model)
    width = weights[0].shape[1]
    for offset, codebook in zip(vocabulary.speech_offsets.tolist(), codebooks, strict=True):
        entries = codebook.detach().float().cpu()
        entries = entries - entries.mean(0)
        projection = torch.randn(entries.shape[1], width, generator=generator)
        projected = entries @ projection  # (entries, width)
        projected = (projected - projected.mean()) / projected.std().clamp_min(1e-12)
        for weight in weights:
            rows = weight[offset : offset + len(projected)]
            rows.copy_(projected * rows.std() + rows.mean())


def add_dropout(model: PreTrainedModel, probability: float) -> None:
    """Drop out embeddings and what attention and MLP add to the residual stream, while training.

    Done by hooks: the saved model stays a plain one of its family, whose configs know no such dropout.
    """

    def drop(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return nn.functional.dropout(output, probability, module.training)

    model.get_input_embeddings().register_forward_hook(drop)
    for layer in decoder_layers(model):
        parts: Any = layer
        try:
            outputs = parts.self_attn.o_proj, parts.mlp.down_proj
        except AttributeError:
            raise UserError(
                f"model.dropout is for Llama-like models, a {model.config.model_type} is built otherwise: set it to 0"
            ) from None
        for output in outputs:
            output.register_forward_hook(drop)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's repeated layers. Raises UserError for an architecture without a list of them."""
    base: Any = getattr(model, "base_model", model)
    for name in ("layers", "h", "blocks"):
        if isinstance(layers := getattr(base, name, None), nn.ModuleList):
            return list(layers)
    raise UserError(
        f"a {type(model).__name__} has no list of layers that could be shared out or dropped out of"
    )


def _token_weights(model: PreTrainedModel) -> list[Tensor]:
    """Rows of tokens at the input and at the output: one matrix where they are tied."""
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    return list({id(layer.weight): layer.weight for layer in layers}.values())
