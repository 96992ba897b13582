"""What a speech language model is on disk: a plain transformers checkpoint, its tokenizer, and `speech.json`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from codec.runs import UserError, write_json
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
    directory: Path, model: "PreTrainedModel", vocabulary: Vocabulary, habits: SpeakingHabits
) -> None:
    """Write `config.json`, `model.safetensors`, `generation_config.json`, tokenizer files and `speech.json`."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(eos_token_id=vocabulary.eos_id, pad_token_id=vocabulary.pad_id)
    # One file, whatever the size up to what one machine holds: shards would be one more thing to keep whole.
    with _without_progress_bars():
        model.save_pretrained(directory, max_shard_size="1TB")
    vocabulary.save_pretrained(directory)
    # Version 5 has it in `rope_parameters` only, which version 4 and clients of its time would pass over.
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    write_json(directory / "config.json", config | {"rope_theta": config["rope_parameters"]["rope_theta"]})
    speech = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8"))
    write_json(directory / SPEECH_FILE, speech | {"speaking": asdict(habits)})


def load_checkpoint(
    directory: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> "PreTrainedModel":
    """The model of a checkpoint directory, in eval mode.

    Raises UserError when the directory holds no model that transformers can load.
    """
    from transformers import AutoModelForCausalLM

    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: not a speech language model, config.json is missing")
    try:
        with _without_progress_bars():
            model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(
                directory, dtype=dtype or torch.float32, use_safetensors=True, local_files_only=True
            )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{directory}: its model cannot be loaded ({reason})") from None
    return cast("PreTrainedModel", model.to(device).eval())


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Models load and save in no time beside what one does with them; transformers' bars would be noise."""
    from transformers.utils import logging

    showing = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if showing:
            logging.enable_progress_bar()
