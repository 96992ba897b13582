"""From a trained codec to one that others use: folded once, rounded once, named by its fingerprint."""

import json
from pathlib import Path

import torch
from torch import nn

from codec.configuration import HHCodecConfig
from codec.identity import fingerprint
from codec.modeling import HHCodecModel
from codec.quiet import quiet_transformers
from codec.runs import UserError, whole_directory

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@torch.no_grad()
def export_codec(model: HHCodecModel, dtype: str = "float32") -> HHCodecModel:
    """Fold weight norm and the codebook transform, drop what only training needs, round to what will be stored.

    The result is in float32, on the CPU, in evaluation mode, and carries its fingerprint: of the rounded encoder and
    quantizer, so that it is the same wherever the stored file is loaded. What a `dtype` of fewer bits rounds has
    another fingerprint; exporting in the dtype that a model is stored in already leaves it as it is.
    """
    if dtype not in STORED:
        raise UserError(f"cannot store weights as {dtype!r}: choose {', '.join(STORED)}")
    config = HHCodecConfig(**{**model.config.to_dict(), "exported": True, "fingerprint": None})
    exported = HHCodecModel(config).eval()
    source = {name: value.detach() for name, value in model.state_dict().items()}
    if not model.config.exported:
        source["quantizer.codebook"] = model.quantizer.effective_codebook()
        for name, module in model.named_modules():
            if nn.utils.parametrize.is_parametrized(module, "weight"):
                source[f"{name}.weight"] = module.weight
    rounded = {name: source[name].detach().cpu().to(STORED[dtype]).float() for name in exported.state_dict()}
    exported.load_state_dict(rounded)
    exported.config.fingerprint = fingerprint(exported)
    return exported


def save_codec(
    model: HHCodecModel, directory: str | Path, dtype: str = "float32", card: str | None = None
) -> HHCodecModel:
    """Export `model` into a directory and return the exported one.

    Writes `config.json`, `model.safetensors` and, from `card`, `README.md`. The directory appears whole or not at all;
    a codec that is there is replaced. Raises UserError when something else is there.
    """
    directory = Path(directory)
    _check_replaceable(directory)
    exported = export_codec(model, dtype)
    stored = HHCodecModel(exported.config)
    stored.load_state_dict(exported.state_dict())
    nn.Module.to(stored, STORED[dtype])
    with whole_directory(directory) as temporary, quiet_transformers():
        stored.save_pretrained(temporary)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
    return exported


def _check_replaceable(directory: Path) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        exported_codec = config["model_type"] == HHCodecConfig.model_type and config["exported"]
    except (OSError, ValueError, KeyError, TypeError):
        exported_codec = False
    if not exported_codec or (directory / "state.json").exists():  # the latter: a training run's checkpoint
        raise UserError(f"{directory} exists and is not an exported codec: give another output directory")
