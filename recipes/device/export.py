"""Checkpoints of runs that are still training, as models for use in files that are small enough to be carried."""

from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file

from codec import save_codec
from codec.foundation import RunDirectory, whole_directory
from codec.loading import load_trained
from slm.models.checkpoint import MODEL_FILE, SpeechCapabilities, load_checkpoint, save_checkpoint
from slm.vocabulary import Vocabulary

LARGEST_FILE = 15_000_000  # bytes; what carries them takes less than 16 MiB


def export_latest_codec(run: Path, output: Path) -> Path:
    """The result of a codec's run, or its latest checkpoint, in bfloat16 at `output/codec`. Raises UserError."""
    target, model = output / "codec", load_trained(run)
    with whole_directory(target) as directory:
        save_codec(model, directory, "bfloat16")
        split_weights(directory)
    return target


def export_latest_slm(run: Path, output: Path) -> Path:
    """The same of a language model, at `output/slm`. Raises UserError, and FileNotFoundError before a checkpoint."""
    trained = RunDirectory(run)
    source = trained.final if trained.final.is_dir() else trained.latest()
    if source is None:
        raise FileNotFoundError(f"{run} has no checkpoint yet")
    target, model = output / "slm", load_checkpoint(source, dtype=torch.bfloat16)
    with whole_directory(target) as directory:
        save_checkpoint(directory, model, Vocabulary.from_pretrained(source), SpeechCapabilities.read(source))
        split_weights(directory)
    return target


def split_weights(directory: Path) -> None:
    """Store a model's weights as shards of at most `LARGEST_FILE` bytes, which transformers reads as one."""
    whole = directory / MODEL_FILE
    if whole.stat().st_size <= LARGEST_FILE:
        return
    weights = load_file(whole)
    whole.unlink()
    save_torch_state_dict(
        weights, directory, max_shard_size=LARGEST_FILE - 100_000, metadata={"format": "pt"}
    )
