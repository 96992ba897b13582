"""A speech language model on disk: a plain transformers checkpoint, its tokenizer, and `speech.json`."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from codec.foundation import UserError, check_replaceable, first_line, whole_directory, write_json
from codec.foundation.errors import not_found
from codec.foundation.quiet import without_progress_bars
from slm.bundled import SPEECH_FILE, bundled_slms, local_slm
from slm.models.adapters import ADAPTER_CONFIG, base_of, merge_adapter
from slm.vocabulary import Vocabulary

MODEL_FILE = "model.safetensors"


def find_slm(name_or_path: str | Path) -> Path:
    """The directory of a model that is given by bundled name, directory, run directory, or hub id.

    A hub id is downloaded, unless it was before. Raises UserError when there is no such model, naming the bundled
    ones.
    """
    if (directory := local_slm(name_or_path)) is not None:
        return directory
    try:
        return Path(snapshot_download(str(name_or_path), allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise not_found("language model", str(name_or_path), bundled_slms()) from error


@dataclass(frozen=True)
class SpeechCapabilities:
    """What a model learned to do, by the data that it was trained on; `speaking` in `speech.json`.

    Attributes:
        formats: the document formats that it was trained on.
        words_per_span: words in one span of an `aligned` document.
        prompts: whether documents followed a prompt utterance.
        seconds_per_character: seconds of speech for a character of text, of the fastest 1 %, the median and the
            slowest 1 % of utterances; None: not known.
        language: of its texts, as "en"; that of most utterances.
    """

    formats: list[str] = field(default_factory=lambda: ["tts"])
    words_per_span: int = 2
    prompts: bool = False
    seconds_per_character: list[float] | None = None
    language: str = "en"

    @property
    def speak_format(self) -> str | None:
        """The document format for text to speech: `aligned` where it was trained, else `tts`; None for neither."""
        return next((name for name in ("aligned", "tts") if name in self.formats), None)

    @property
    def pace(self) -> tuple[float, float, float]:
        """Seconds for a character: fastest, usual, slowest. Those of English where the model does not know its own."""
        fast, usual, slow = self.seconds_per_character or (0.045, 0.065, 0.1)
        return fast, usual, slow

    @classmethod
    def read(cls, directory: Path) -> "SpeechCapabilities":
        """From a checkpoint; the defaults where it does not say."""
        there = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8")).get("speaking", {})
        return cls(**{entry.name: there[entry.name] for entry in fields(cls) if entry.name in there})


def save_checkpoint(
    directory: Path,
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    capabilities: SpeechCapabilities,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write `config.json`, `model.safetensors`, `generation_config.json`, tokenizer files and `speech.json`.

    weights: by name, if the model itself does not hold them (it is sharded).
    """
    model.generation_config = _generation_config(vocabulary)
    # One file, whatever the size up to what one machine holds: shards would be one more thing to keep whole.
    with without_progress_bars():
        model.save_pretrained(directory, max_shard_size="1TB", state_dict=weights)
    # Version 5 has it in `rope_parameters` only, which version 4 and clients of its time would pass over.
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if "rope_theta" in (config.get("rope_parameters") or {}):
        write_json(
            directory / "config.json", config | {"rope_theta": config["rope_parameters"]["rope_theta"]}
        )
    save_vocabulary(directory, vocabulary, capabilities)


def _generation_config(vocabulary: Vocabulary) -> GenerationConfig:
    return GenerationConfig(
        bos_token_id=vocabulary.bos_id, eos_token_id=vocabulary.eos_id, pad_token_id=vocabulary.pad_id
    )


def save_vocabulary(directory: Path, vocabulary: Vocabulary, capabilities: SpeechCapabilities) -> None:
    """Write the tokenizer files, `speech.json` and `generation_config.json`."""
    vocabulary.save_pretrained(directory)
    _generation_config(vocabulary).save_pretrained(directory)
    speech = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8"))
    write_json(directory / SPEECH_FILE, speech | {"speaking": asdict(capabilities)})


def load_checkpoint(
    directory: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """The model of a checkpoint directory, in eval mode. An adapter is merged into its base model.

    attention: `attn_implementation` of transformers; its own choice unless set.

    Raises UserError when the directory holds no model that transformers can load.
    """
    if (directory / ADAPTER_CONFIG).is_file():
        base = load_checkpoint(find_slm(base_of(directory)), dtype=dtype, attention=attention)
        merged: torch.nn.Module = merge_adapter(base, directory)
        return cast(PreTrainedModel, merged.to(device).eval())
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
    return cast(PreTrainedModel, model.to(device).eval())


def merge(adapter: str | Path, output: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write an adapter's model with the adapter in its weights, as a plain SLM checkpoint.

    adapter: its directory or run. A checkpoint at `output` is replaced. Raises UserError when something else is there,
    when that is no adapter, or its model is not to be found.
    """
    output = Path(output)
    check_replaceable(output, (output / SPEECH_FILE).is_file(), "is no speech language model")
    directory = find_slm(adapter)
    if not (directory / ADAPTER_CONFIG).is_file():
        raise UserError(f"{adapter} is no adapter but a model by itself: there is nothing to merge")
    # Low-rank products are added in full precision, whatever is written.
    model = load_checkpoint(directory, dtype=torch.float32)
    torch.nn.Module.to(model, dtype)
    with whole_directory(output) as target:
        save_checkpoint(
            target, model, Vocabulary.from_pretrained(directory), SpeechCapabilities.read(directory)
        )
