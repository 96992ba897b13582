"""Vocos models: `pytorch_model.bin` of `charactr/vocos-mel-24khz` and its kind."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from codec.foundation import UserError
from codec.hh_codec.presets import VOCOS_MEL_24KHZ
from codec.importing.foreign import count, shape_of, take_over
from codec.nn.mel import MelConfig
from codec.vocoders.configuration import VocosConfig
from codec.vocoders.vocos import Vocos

# the mel's window and filter bank and the inverse STFT's window are constants
NOT_NEEDED = re.compile(r"^feature_extractor\.|^head\.istft\.window$")


def import_vocos(weights: Mapping[str, Tensor], path: Path) -> Vocos:
    """A vocoder from the tensors of a Vocos model on mel spectrograms; the mel is that of the published 24 kHz model.

    Raises UserError for a tensor that is missing, unexpected or of another shape.
    """
    dim, n_mels, kernel_size = shape_of(weights, "backbone.embed.weight", path)
    n_fft = shape_of(weights, "head.out.weight", path)[0] - 2
    mel = MelConfig(**{**VOCOS_MEL_24KHZ, "n_mels": n_mels, "n_fft": n_fft})
    if mel.n_fft != VOCOS_MEL_24KHZ["n_fft"]:
        raise UserError(
            f"{path} is a Vocos of {n_fft}-sample windows: only the 24 kHz model of 1024 can be imported"
        )
    config = VocosConfig(
        mel=mel,
        dim=dim,
        hidden_dim=shape_of(weights, "backbone.convnext.0.pwconv1.weight", path)[0],
        blocks=count(weights, r"backbone\.convnext\.(\d+)\."),
        kernel_size=kernel_size,
    )
    vocoder = Vocos(config)
    take_over(vocoder, weights, foreign_name, NOT_NEEDED, path)
    return vocoder.eval()


def foreign_name(name: str) -> str:
    """The published name of one of our tensors."""
    return name if name.startswith("head.") else f"backbone.{name}"
