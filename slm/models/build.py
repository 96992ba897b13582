"""New language models: how their weights start, and the dropout that only training sees."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from codec.foundation import UserError, first_line, seed_globals, torch_generator
from slm.models.configuration import ModelConfig, transformers_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slm.vocabulary import Vocabulary


def build_model(
    config: ModelConfig,
    vocabulary: "Vocabulary",
    seed: int,
    codebooks: list[Tensor] | None = None,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
) -> "PreTrainedModel":
    """A causal LM with fresh weights, the same for the same seed.

    codebooks: effective codebook (entries, dim) of each quantizer, for `speech_embeddings: codebook`.
    """
    from transformers import AutoModelForCausalLM

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
    model: "PreTrainedModel", vocabulary: "Vocabulary", codebooks: list[Tensor], generator: torch.Generator
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


def add_dropout(model: "PreTrainedModel", probability: float) -> None:
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


def _token_weights(model: "PreTrainedModel") -> list[Tensor]:
    """Rows of tokens at the input and at the output: one matrix where they are tied."""
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    return list({id(layer.weight): layer.weight for layer in layers}.values())
