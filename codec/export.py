"""A trained codec as others use it: folded, rounded, named by its fingerprint; and vocoders by themselves."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from codec.base import CodecModel, Vocoder
from codec.configuration import fingerprint
from codec.foundation import UserError, check_replaceable, whole_directory
from codec.foundation.quiet import quiet_transformers
from codec.nn.blocks import fit_weight_norm, fold_weight_norm
from codec.nn.mel import MelConfig

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
VOCODER_TYPE = "mel-vocoder"  # the model_type in a vocoder's config.json


@torch.no_grad()
def export_codec(model: CodecModel, dtype: str = "float32") -> CodecModel:
    """Fold weight norm, codebook transform and projections, drop what only training needs, round to what is stored.

    The result is in float32, on the CPU, in evaluation mode, and carries its fingerprint: of the rounded encoder and
    quantizer, so that it is the same wherever the stored file is loaded. What a `dtype` of fewer bits rounds has
    another fingerprint; exporting in the dtype that a model is stored in already leaves it as it is.
    """
    if dtype not in STORED:
        raise UserError(f"cannot store weights as {dtype!r}: choose {', '.join(STORED)}")
    config = type(model.config)(**{**model.config.to_dict(), "exported": True, "fingerprint": None})
    exported = type(model)(config).eval()
    source = {**model.state_dict(), **model.folded()}
    rounded = {name: source[name].detach().cpu().to(STORED[dtype]).float() for name in exported.state_dict()}
    exported.load_state_dict(rounded)
    exported.config.fingerprint = fingerprint(exported)
    return exported


@torch.no_grad()
def with_vocoder(model: CodecModel, vocoder: Vocoder) -> CodecModel:
    """The codec with another vocoder in the place of its own: its codes mean what they meant.

    Raises UserError unless there is one, and both hear the same mel, which is what the decoder has learned to draw.
    """
    name = model.config.name
    if "vocoder" not in model.PARTS:
        raise UserError(f"{name} has no vocoder to replace: its decoder makes the waveform")
    own, other = model.vocoder.config.mel, vocoder.config.mel
    if own != other:
        raise UserError(
            f"the decoder of {name} draws {_in_words(own)}; the vocoder hears {_in_words(other)}: "
            "train a decoder for it"
        )
    config = type(model.config)(**{**model.config.to_dict(), "vocoder": asdict(vocoder.config)})
    changed = type(model)(config)
    for part in set(model.PARTS) - {"vocoder"}:
        changed.get_submodule(part).load_state_dict(model.get_submodule(part).state_dict())
    changed.vocoder.load_state_dict(fit_weight_norm(vocoder.state_dict(), changed.vocoder))
    return changed.eval()


def _in_words(mel: MelConfig) -> str:
    return (
        f"{mel.n_mels} bands ({mel.mel_scale}, floor {mel.floor:g}) every {mel.hop_length} samples of "
        f"{mel.sampling_rate} Hz, frames aligned {mel.alignment!r}"
    )


def save_codec(
    model: CodecModel, directory: str | Path, dtype: str = "float32", card: str | None = None
) -> CodecModel:
    """Export `model` into a directory and return the exported one.

    Writes `config.json`, `model.safetensors` and, from `card`, `README.md`. The directory appears whole or not at all;
    a codec that is there is replaced. Raises UserError when something else is there.
    """
    directory = Path(directory)
    check_replaceable(directory, _is_exported(directory), "is not an exported codec")
    exported = export_codec(model, dtype)
    stored = type(exported)(exported.config)
    stored.load_state_dict(exported.state_dict())
    nn.Module.to(stored, STORED[dtype])
    with whole_directory(directory) as temporary, quiet_transformers():
        stored.save_pretrained(temporary)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
    return exported


def save_trainable(model: CodecModel, directory: str | Path) -> None:
    """Write a model with all that training needs into a new directory, in float32: `initialize` and `model` take it.

    Raises UserError when something is there.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists: give another output directory")
    with whole_directory(directory) as temporary, quiet_transformers():
        model.save_pretrained(temporary)


def _is_exported(directory: Path) -> bool:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        exported = config["exported"] and config["fingerprint"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(exported) and not (directory / "state.json").exists()  # a training run's checkpoint has one


def save_vocoder(vocoder: Vocoder, directory: str | Path) -> None:
    """Write `config.json` and `model.safetensors`, weight norm folded; the directory appears whole or not at all.

    Raises UserError when something other than a vocoder is there.
    """
    directory = Path(directory)
    check_replaceable(directory, holds_vocoder(directory), "is not a vocoder")
    weights = fold_weight_norm({name: value.detach().cpu() for name, value in vocoder.state_dict().items()})
    config = {"model_type": VOCODER_TYPE, "vocoder": asdict(vocoder.config)}
    with whole_directory(directory) as temporary:
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(
            {name: value.contiguous() for name, value in weights.items()},
            temporary / "model.safetensors",
            metadata={"format": "pt"},
        )


def holds_vocoder(directory: str | Path) -> bool:
    """Whether a directory's `config.json` says that a vocoder by itself is in it."""
    try:
        config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == VOCODER_TYPE
