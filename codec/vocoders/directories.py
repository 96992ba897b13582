"""Vocoders by themselves: made from a configuration, and kept in directories of their own."""

import json
from pathlib import Path
from typing import TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from codec.configuration import plain
from codec.foundation import UserError, whole_directory
from codec.nn.weight_norm import fold_weight_norm
from codec.vocoders.bigvgan import BigVGAN
from codec.vocoders.configuration import BigVGANConfig, VocosConfig, vocoder_from
from codec.vocoders.vocos import Vocos

Vocoder: TypeAlias = Vocos | BigVGAN

MODEL_TYPE = "mel-vocoder"  # in config.json, where a codec's directory names the codec's type
_WEIGHTS = "model.safetensors"


def build_vocoder(config: VocosConfig | BigVGANConfig, *, folded: bool) -> Vocoder:
    """A fresh vocoder; `folded`: without weight norm."""
    return BigVGAN(config, folded=folded) if isinstance(config, BigVGANConfig) else Vocos(config)


def save_vocoder(vocoder: Vocoder, directory: str | Path) -> None:
    """Write `config.json` and `model.safetensors`, weight norm folded; the directory appears whole or not at all.

    Raises UserError when something other than a vocoder is there.
    """
    directory = Path(directory)
    if (
        directory.exists()
        and not holds_vocoder(directory)
        and (directory.is_file() or any(directory.iterdir()))
    ):
        raise UserError(f"{directory} exists and is not a vocoder: give another output directory")
    weights = fold_weight_norm({name: value.detach().cpu() for name, value in vocoder.state_dict().items()})
    config = {"model_type": MODEL_TYPE, "vocoder": plain(vocoder.config)}
    with whole_directory(directory) as temporary:
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(
            {name: value.contiguous() for name, value in weights.items()},
            temporary / _WEIGHTS,
            metadata={"format": "pt"},
        )


def load_vocoder(directory: str | Path) -> Vocoder:
    """Read what `save_vocoder` wrote; evaluation mode, without weight norm.

    Raises UserError unless it is there, whole, and fits together.
    """
    directory = Path(directory)
    if not holds_vocoder(directory):
        raise UserError(f"{directory} holds no vocoder: expected what `import-weights` writes of one")
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        vocoder = build_vocoder(vocoder_from(config["vocoder"]), folded=True)
        vocoder.load_state_dict(load_file(directory / _WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot read the vocoder {directory}: {' '.join(str(error).split())}") from error
    return vocoder.eval()


def holds_vocoder(directory: str | Path) -> bool:
    """Whether a directory's `config.json` says that a vocoder by itself is in it."""
    try:
        config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE
