"""Training a part of a pretrained model (PEFT): low-rank additions, and the rows of tokens that are no text."""

import json
from pathlib import Path
from typing import Any

from peft import (
    LoraConfig,
    PeftModel,
    TrainableTokensConfig,
    get_peft_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from codec.foundation import UserError, first_line, seed_globals
from slm.models.config import TuningConfig
from slm.vocabulary import Vocabulary

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"


def attach_adapter(
    model: PreTrainedModel, tuning: TuningConfig, vocabulary: Vocabulary, base: str, seed: int
) -> PeftModel:
    """Freeze a model but for what `tuning` trains, in place; the result is the same model as PEFT sees it.

    base: where the pretrained model is found again, for whoever loads the adapter. Raises UserError for modules that
    the model has not.
    """
    # Text tokens come first: all that follows them is ours.
    rows = list(range(vocabulary.num_text, len(vocabulary)))
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    is_tied = layers[0].weight is layers[1].weight
    tables = [_name_of(model, layer) for layer in layers]
    config: Any
    if tuning.mode == "lora":
        config = LoraConfig(
            r=tuning.rank,
            lora_alpha=tuning.alpha,
            lora_dropout=tuning.dropout,
            target_modules=tuning.target_modules or "all-linear",
            trainable_token_indices={name: rows for name in tables},
            task_type="CAUSAL_LM",
        )
    else:
        # PEFT has a tied head follow the embedding by itself, and here will not hear of it.
        config = TrainableTokensConfig(
            target_modules=tables[:1] if is_tied else tables, token_indices=rows, task_type="CAUSAL_LM"
        )
    seed_globals(seed, "adapter")
    try:
        adapted = get_peft_model(model, config)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"tuning does not fit the model: {first_line(error)}") from None
    config.base_model_name_or_path = base
    return adapted  # type: ignore[return-value]


def save_adapter(directory: Path, adapted: PeftModel, weights: dict[str, Tensor] | None = None) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    weights: of the whole model by name, where they are not in the model itself (it is sharded).
    """
    # The rows of new tokens are in the adapter, the rest of the embedding is the base model's.
    adapted.save_pretrained(str(directory), state_dict=weights, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # a card to be filled in, which nobody would


def load_adapter_weights(adapted: PeftModel, directory: Path) -> None:
    """Put back what `save_adapter` wrote, bit for bit."""
    outcome: Any = set_peft_model_state_dict(adapted, load_file(directory / ADAPTER_FILE))
    if outcome.unexpected_keys:
        raise UserError(f"{directory}: its adapter is of another model ({outcome.unexpected_keys[0]})")


def base_of(directory: Path) -> str:
    """Where the model is that an adapter belongs to."""
    config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return config["base_model_name_or_path"]


def merge_adapter(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """The base model with an adapter's weights in its own; in place.

    Raises UserError when they do not belong together.
    """
    vocabulary = Vocabulary.from_pretrained(directory)
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    try:
        adapted = PeftModel.from_pretrained(model, str(directory))
        merged: Any = adapted.merge_and_unload()  # type: ignore[operator]
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{directory}: its adapter does not fit {base_of(directory)} ({first_line(error)})"
        ) from None
    merged.config.eos_token_id, merged.config.pad_token_id = vocabulary.eos_id, vocabulary.pad_id
    return merged


def head_weight(head: nn.Module) -> Tensor | None:
    """The matrix that a head multiplies by, trained rows in it; None where it does more than multiply by one."""
    layer: Any = getattr(head, "token_adapter", head)
    if hasattr(layer, "get_merged_weights"):
        return layer.base_layer.weight if layer.merged else layer.get_merged_weights(layer.active_adapters)
    return head.weight if type(head) is nn.Linear else None


def head_bias(head: nn.Module) -> Tensor | None:
    """What a head adds."""
    return head.bias if type(head) is nn.Linear else None


def _name_of(model: nn.Module, layer: Any) -> str:
    """A module's own name, without those of what it is in; embedding and head may share a weight, not a module."""
    return next(name for name, module in model.named_modules() if module is layer).rpartition(".")[2]
