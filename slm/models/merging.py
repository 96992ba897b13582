"""From an adapter to a checkpoint that needs neither PEFT nor the model it was trained from."""

from pathlib import Path

import torch

from codec.foundation import UserError, whole_directory
from slm.bundled import find_slm
from slm.models.adapters import ADAPTER_CONFIG
from slm.models.checkpoint import SpeakingHabits, load_checkpoint, save_checkpoint
from slm.vocabulary import Vocabulary


def merge(adapter: str | Path, output: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write an adapter's model with the adapter in its weights, as a plain SLM checkpoint.

    adapter: its directory or run. Raises UserError when that is no adapter, or its model is not to be found.
    """
    directory = find_slm(adapter)
    if not (directory / ADAPTER_CONFIG).is_file():
        raise UserError(f"{adapter} is no adapter but a model by itself: there is nothing to merge")
    # Low-rank products are added in full precision, whatever is written.
    model = load_checkpoint(directory, dtype=torch.float32)
    torch.nn.Module.to(model, dtype)
    with whole_directory(output) as target:
        save_checkpoint(target, model, Vocabulary.from_pretrained(directory), SpeakingHabits.read(directory))
