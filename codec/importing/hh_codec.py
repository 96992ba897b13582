"""The original HH-Codec: a Lightning checkpoint (arXiv 2507.18897)."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from codec.foundation import UserError
from codec.hh_codec.configuration import HHCodecConfig, SEANetConfig
from codec.hh_codec.modeling import HHCodecModel
from codec.importing.state_dict import count, load_renamed, prefix_of, shape_of, tensors_of
from codec.importing.vocoders import bigvgan_config, nvidia_name
from codec.presets import PRESETS

Weights = Literal["average", "raw"]

# What the file has besides: a waveform decoder that nothing calls, losses with their discriminators, the distillation
# head, the average, filters that are constants, and the second quantizer's name for the MLP that it shares
NOT_NEEDED = re.compile(
    r"^(decoder|loss|conv_transpose|model_ema)\.|^colorize$|^bigvqgan\..*\.filter$|"
    r"^quantize\.layers\.[1-9]\d*\.code_transform\."
)
_AVERAGE = "model_ema."
_FIRST_AVERAGED_EPOCH = 10  # before, the original's average holds the random first weights

_ENCODER_UNIT = {"conv1": "block.1", "conv2": "block.3", "shortcut": "shortcut"}


def import_hh_codec(content: Mapping[str, Any], path: Path, weights: Weights = "average") -> HHCodecModel:
    """The codec in a Lightning checkpoint, with all that training needs (`export_codec` folds it).

    `weights`: the average over training steps, which the authors evaluate, or the raw ones of the last step.
    Raises UserError for a tensor that is missing, unexpected or of another shape, and for an average of nothing.
    """
    state = tensors_of(content["state_dict"])
    if weights == "average":
        state = _averaged(state, content.get("epoch"), path)
    model = HHCodecModel(hh_codec_config(state, path))
    load_renamed(model, state, Names(len(model.config.encoder["ratios"])).foreign, NOT_NEEDED, path)
    return model.eval()


def hh_codec_config(state: Mapping[str, Tensor], path: Path) -> HHCodecConfig:
    """The published geometry, at the widths that the shapes say."""

    def shape(name: str) -> tuple[int, ...]:
        return shape_of(state, name, path)

    # first convolution; then of each stage a residual unit, ELU and a strided convolution of twice the stride
    stages = range(3, count(state, r"encoder\.model\.(\d+)\.conv\.") - 1, 3)
    filters = shape("encoder.model.0.conv.conv.weight")[0]
    ratios = tuple(shape(f"encoder.model.{index}.conv.conv.weight")[2] // 2 for index in stages)
    codes, latent = shape("quantize.layers.0.frozen_codebook")
    hidden, dim = shape("backbone.convnext.0.pwconv1.weight")
    try:
        return HHCodecConfig(
            name="hh-codec",
            encoder=asdict(SEANetConfig(num_filters=filters, ratios=ratios, dim=latent)),
            quantizer={
                "codebook_size": codes,
                "dim": latent,
                "hidden_dim": shape("quantize.layers.0.code_transform.0.weight")[0],
                "training_quantizers": count(state, r"quantize\.layers\.(\d+)\."),
            },
            decoder={
                **PRESETS["hh-codec"]["decoder"],
                "dim": dim,
                "hidden_ratio": hidden // dim,
                "blocks": count(state, r"backbone\.convnext\.(\d+)\."),
                "upsample": shape("melhead.transconv.weight")[2],
            },
            vocoder=asdict(bigvgan_config(prefix_of(state, "bigvqgan."), path)),
        )
    except ValueError as error:
        raise UserError(f"{path} is not what was expected: {error}") from error


class Names:
    """The original's names of our tensors, for an encoder of so many stages."""

    def __init__(self, stages: int):
        self.lstm = 3 * stages + 1  # its place in the encoder's list of layers

    def foreign(self, name: str) -> str:
        """The original's name of one of our tensors."""
        part, _, rest = name.partition(".")
        return {
            "encoder": self._encoder,
            "quantizer": self._quantizer,
            "decoder": self._decoder,
            "vocoder": lambda rest: f"bigvqgan.{nvidia_name(rest)}",
        }[part](rest)

    def _encoder(self, name: str) -> str:
        if found := re.match(r"units\.(\d+)\.(\w+)\.conv\.(.*)", name):
            return f"encoder.model.{3 * int(found[1]) + 1}.{_ENCODER_UNIT[found[2]]}.conv.conv.{found[3]}"
        if found := re.match(r"downsamples\.(\d+)\.conv\.(.*)", name):
            return f"encoder.model.{3 * int(found[1]) + 3}.conv.conv.{found[2]}"
        if name.startswith("lstm."):
            return f"encoder.model.{self.lstm}.{name.removeprefix('lstm.')}"
        layer, _, rest = name.partition(".conv.")
        place = 0 if layer == "first" else self.lstm + 2
        return f"encoder.model.{place}.conv.conv.{rest}"

    def _quantizer(self, name: str) -> str:
        if found := re.match(r"frozen_codebook_(\d+)", name):
            return f"quantize.layers.{found[1]}.frozen_codebook"
        return f"quantize.layers.0.{name}"

    def _decoder(self, name: str) -> str:
        layer, _, rest = name.partition(".")
        if layer == "mel_head":
            return f"melhead.transconv.{rest}"
        renamed = {"context": "pos_net", "context_norm": "pos_net.5", "final_norm": "final_layer_norm"}
        return f"backbone.{renamed.get(layer, layer)}.{rest}"


def _averaged(state: Mapping[str, Tensor], epoch: int | None, path: Path) -> dict[str, Tensor]:
    """The state with averages in the place of what they are averages of; the original names them without dots."""
    if epoch is not None and epoch < _FIRST_AVERAGED_EPOCH:
        raise UserError(
            f"{path} is of epoch {epoch}: the original averages weights from epoch {_FIRST_AVERAGED_EPOCH} on, before "
            "that its average is the random start; take --weights raw"
        )
    averages = prefix_of(state, _AVERAGE)
    averaged = {
        name: averages.pop(name.replace(".", ""), value)
        for name, value in state.items()
        if not name.startswith(_AVERAGE)
    }
    lacking = [
        name
        for name in averaged
        if not NOT_NEEDED.search(name) and "frozen_codebook" not in name and averaged[name] is state[name]
    ]
    if lacking:
        raise UserError(
            f"{path} has no averaged weights of {lacking[0]} and {len(lacking) - 1} more: take --weights raw"
        )
    if stray := sorted(set(averages) - {"decay", "num_updates"}):
        raise UserError(
            f"{path} is not what was expected: unexpected {_AVERAGE}{stray[0]} and {len(stray) - 1} more"
        )
    return averaged
