"""Published vocoders: NVIDIA's BigVGAN v2 generators and Vocos models on mel spectrograms.

A generator is a `bigvgan_generator.pt` with the `config.json` beside it; a Vocos the `pytorch_model.bin` of
`charactr/vocos-mel-24khz` and its kind.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.foundation import UserError
from codec.importing.state_dict import count, load_renamed, shape_of
from codec.nn.mel import MelConfig
from codec.presets import VOCOS_MEL_24KHZ
from codec.vocoders.bigvgan import BigVGAN, BigVGANConfig
from codec.vocoders.vocos import Vocos, VocosConfig

_BIGVGAN_EXTRA = re.compile(r"\.filter$")  # the low-pass filters are constants


def import_bigvgan(weights: Mapping[str, Tensor], path: Path) -> BigVGAN:
    """A vocoder from the tensors of a generator, weight norm on or folded.

    Raises UserError for a tensor that is missing, unexpected or of another shape, and for a variant of BigVGAN that
    is not the second version's (Snake without beta, plain magnitudes, a tanh or a bias at the end).
    """
    beside = path.parent / "config.json"
    said = _read(beside) if beside.is_file() else {}
    vocoder = BigVGAN(bigvgan_config(weights, path, said), folded=True)
    load_renamed(vocoder, weights, nvidia_name, _BIGVGAN_EXTRA, path)
    return vocoder.eval()


def nvidia_name(name: str) -> str:
    """NVIDIA's name of one of our tensors."""
    name = re.sub(r"^ups\.(\d+)\.", r"ups.\1.0.", name)
    return re.sub(r"\.(alpha|beta)$", r".act.\1", name)


def bigvgan_config(
    weights: Mapping[str, Tensor], path: Path, said: Mapping[str, Any] | None = None
) -> BigVGANConfig:
    """What the tensors' shapes say, and NVIDIA's hyperparameters where they are known.

    Without them the mel is that of the published 24 kHz models, at the hop that the upsampling makes; an upsampling's
    rate is half its kernel, and dilations are 1, 3, 5, ..., as in all published models.
    """
    said = said or {}
    dim, n_mels, _ = shape_of(weights, "conv_pre.weight", path)
    stages = count(weights, r"ups\.(\d+)\.")
    blocks = count(weights, r"resblocks\.(\d+)\.") // max(1, stages)
    kernels = tuple(shape_of(weights, f"ups.{stage}.0.weight", path)[2] for stage in range(stages))
    rates = tuple(said.get("upsample_rates", (kernel // 2 for kernel in kernels)))
    sizes = tuple(shape_of(weights, f"resblocks.{block}.convs1.0.weight", path)[2] for block in range(blocks))
    depth = count(weights, r"resblocks\.0\.convs1\.(\d+)\.")
    dilations = said.get("resblock_dilation_sizes", [[1 + 2 * index for index in range(depth)]] * blocks)
    published = BigVGANConfig().mel
    try:
        mel = MelConfig(
            sampling_rate=said.get("sampling_rate", published.sampling_rate),
            n_fft=said.get("n_fft", published.n_fft),
            hop_length=said.get("hop_size", published.hop_length),
            n_mels=n_mels,
            f_min=float(said.get("fmin", published.f_min)),
            f_max=float(said.get("fmax") or said.get("sampling_rate", published.sampling_rate) / 2),
            power_offset=published.power_offset,
        )
        return BigVGANConfig(
            mel=mel,
            dim=dim,
            upsample_rates=rates,
            upsample_kernel_sizes=kernels,
            block_kernel_sizes=sizes,
            block_dilations=tuple(map(tuple, dilations)),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} and the config.json beside it do not fit together: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    """NVIDIA's hyperparameters; UserError for what our BigVGAN does not do."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if not isinstance(said, dict):
        raise UserError(f"{file} holds no hyperparameters: it is a {type(said).__name__}, expected an object")
    expected = {
        "resblock": "1",
        "activation": "snakebeta",
        "snake_logscale": True,
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
    }
    for key, value in expected.items():
        if key in said and said[key] != value:
            raise UserError(
                f"{file} says {key} {said[key]!r}: only BigVGAN v2 models with {value!r} can be imported"
            )
    if said.get("win_size", said.get("n_fft")) != said.get("n_fft"):
        raise UserError(
            f"{file} says win_size {said['win_size']}: only windows of n_fft samples can be imported"
        )
    return said


# the mel's window and filter bank and the inverse STFT's window are constants
_VOCOS_EXTRA = re.compile(r"^feature_extractor\.|^head\.istft\.window$")


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
    load_renamed(vocoder, weights, _vocos_name, _VOCOS_EXTRA, path)
    return vocoder.eval()


def _vocos_name(name: str) -> str:
    """The published name of one of our tensors."""
    return name if name.startswith("head.") else f"backbone.{name}"
