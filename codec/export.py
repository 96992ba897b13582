"""From a trained codec to one that others use: folded once, rounded once, named by its fingerprint."""

from pathlib import Path

import torch
from torch import nn

from codec.configuration import HHCodecConfig
from codec.identity import fingerprint
from codec.modeling import HHCodecModel
from codec.runs import UserError, whole_directory

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@torch.no_grad()
def export_codec(model: HHCodecModel, dtype: str = "float32") -> HHCodecModel:
    """Fold weight norm and the codebook transform, drop what only training needs, round to what will be stored.

    The result is in float32, on the CPU, in evaluation mode, and carries its fingerprint: of the rounded encoder and
    quantizer, so that it is the same wherever the stored file is loaded. Exporting an exported model changes decoder and
    vocoder at most.
    """
    if dtype not in STORED:
        raise UserError(f"cannot store weights as {dtype!r}: choose {', '.join(STORED)}")
    config = HHCodecConfig(**{**model.config.to_dict(), "exported": True, "fingerprint": None})
    exported = HHCodecModel(config).eval()
    tensors = exported.state_dict()
    source = {name: value.detach().cpu().float() for name, value in model.state_dict().items()}
    if not model.config.exported:
        source["quantizer.codebook"] = model.quantizer.effective_codebook().detach().cpu().float()
        for name, module in model.named_modules():
            if nn.utils.parametrize.is_parametrized(module, "weight"):
                source[f"{name}.weight"] = module.weight.detach().cpu().float()
    exported.load_state_dict({name: source[name].to(STORED[dtype]).float() for name in tensors})
    exported.config.fingerprint = fingerprint(exported)
    return exported


def save_codec(
    model: HHCodecModel, directory: str | Path, dtype: str = "float32", card: str | None = None
) -> HHCodecModel:
    """Export `model` into a directory (`config.json`, `model.safetensors`, perhaps `README.md`); returns the exported one.

    The directory appears whole or not at all, and replaces one that is there.
    """
    exported = export_codec(model, dtype)
    stored = HHCodecModel(exported.config)
    stored.load_state_dict(exported.state_dict())
    stored.to(STORED[dtype])
    with whole_directory(directory) as temporary:
        stored.save_pretrained(temporary)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
    return exported
