"""What a speech language model is on disk: a plain transformers checkpoint, its tokenizer, and `speech.json`."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from codec.foundation import UserError, first_line, write_json
from codec.foundation.quiet import without_progress_bars
from slm.bundled import find_slm
from slm.models.adapters import ADAPTER_CONFIG, base_of, merge_adapter
from slm.vocabulary import SPEECH_FILE, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class SpeakingHabits:
    """What generation has to know of the data that a model was trained on; `speaking` in `speech.json`."""

    formats: list[str] = field(
        default_factory=lambda: ["tts"]
    )  # document formats, as slm.documents names them
    words_per_span: int = 2  # of `aligned`
    prompts: bool = False  # whether documents followed a prompt utterance
    # Seconds of speech for a character of text: of the fastest 1 %, the median and the slowest 1 % of utterances.
    seconds_per_character: list[float] | None = None

    @property
    def speak_format(self) -> str | None:
        """The document format for text to speech: `aligned` where it was trained, else `tts`; None for neither."""
        return next((name for name in ("aligned", "tts") if name in self.formats), None)

    @classmethod
    def read(cls, directory: Path) -> "SpeakingHabits":
        """From a checkpoint; the defaults where it does not say."""
        there = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8")).get("speaking", {})
        return cls(**{entry.name: there[entry.name] for entry in fields(cls) if entry.name in there})


def save_checkpoint(
    directory: Path,
    model: "PreTrainedModel",
    vocabulary: Vocabulary,
    habits: SpeakingHabits,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write `config.json`, `model.safetensors`, `generation_config.json`, tokenizer files and `speech.json`.

    weights: by name, where they are not in the model itself (it is sharded).
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(eos_token_id=vocabulary.eos_id, pad_token_id=vocabulary.pad_id)
    # One file, whatever the size up to what one machine holds: shards would be one more thing to keep whole.
    with without_progress_bars():
        model.save_pretrained(directory, max_shard_size="1TB", state_dict=weights)
    # Version 5 has it in `rope_parameters` only, which version 4 and clients of its time would pass over.
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if "rope_theta" in (config.get("rope_parameters") or {}):
        write_json(
            directory / "config.json", config | {"rope_theta": config["rope_parameters"]["rope_theta"]}
        )
    save_vocabulary(directory, vocabulary, habits)


def save_vocabulary(directory: Path, vocabulary: Vocabulary, habits: SpeakingHabits) -> None:
    """Write the tokenizer files and `speech.json`."""
    vocabulary.save_pretrained(directory)
    speech = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8"))
    write_json(directory / SPEECH_FILE, speech | {"speaking": asdict(habits)})


def load_checkpoint(
    directory: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    attention: str | None = None,
) -> "PreTrainedModel":
    """The model of a checkpoint directory, in eval mode; an adapter comes merged with the model that it is for.

    attention: what transformers calls `attn_implementation`; its own choice unless set.

    Raises UserError when the directory holds no model that transformers can load.
    """
    from transformers import AutoModelForCausalLM

    if (directory / ADAPTER_CONFIG).is_file():
        base = load_checkpoint(find_slm(base_of(directory)), dtype=dtype, attention=attention)
        merged: torch.nn.Module = merge_adapter(base, directory)
        return cast("PreTrainedModel", merged.to(device).eval())
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: not a language model, config.json is missing")
    try:
        with without_progress_bars():
            model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype or torch.float32,
                use_safetensors=True,
                local_files_only=True,
                attn_implementation=attention,
            )
    except (ImportError, OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{directory}: its model cannot be loaded ({reason})") from None
    return cast("PreTrainedModel", model.to(device).eval())
