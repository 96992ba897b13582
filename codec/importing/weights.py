"""A published file of weights, of any known kind, in this project's form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from codec.configuration import CodecConfig
from codec.export import save_codec, save_trainable, save_vocoder
from codec.foundation import UserError
from codec.importing.hh_codec import Weights, import_hh_codec
from codec.importing.state_dict import read_weights, tensors_of
from codec.importing.vocoders import import_bigvgan, import_vocos

Kind = Literal["hh-codec", "bigvgan", "vocos"]
KINDS: tuple[Kind, ...] = ("hh-codec", "bigvgan", "vocos")


@dataclass(frozen=True)
class Imported:
    """What an import has written."""

    kind: Kind
    directory: Path
    config: CodecConfig | None  # of a codec; None for a vocoder by itself

    def __str__(self) -> str:
        if self.config is None:
            return f"imported a {self.kind} vocoder: {self.directory}"
        if not self.config.exported:
            return f"imported {self.config.name}, to train on: {self.directory}"
        return f"imported {self.config.name}, fingerprint {self.config.fingerprint}: {self.directory}"


def import_weights(
    file: Path,
    output: Path,
    kind: Kind | Literal["auto"] = "auto",
    weights: Weights = "average",
    dtype: str = "float32",
    trainable: bool = False,
) -> Imported:
    """Turn a published file of weights into a directory of this project's form.

    A codec becomes an exported model directory with its fingerprint, stored in `dtype`, or, `trainable`, one in float32
    that still has what only training needs; a vocoder a directory that training starts from and codecs take theirs
    from, in float32. `weights` says which of an HH-Codec's.
    Raises UserError for a file that cannot be read, is of no known kind, or has other tensors than it should.
    """
    content = read_weights(file)
    found = _kind_of(content) if kind == "auto" else kind
    if found is None:
        names = ", ".join(list(content)[:3])
        raise UserError(
            f"{file} is of no known kind ({', '.join(KINDS)}): it begins with {names or 'nothing'}"
        )
    if found == "hh-codec":
        if not isinstance(content.get("state_dict"), Mapping):
            raise UserError(f"{file} is no Lightning checkpoint: it has no state_dict")
        model = import_hh_codec(content, file, weights)
        if trainable:
            save_trainable(model, output)
            return Imported(found, output, model.config)
        return Imported(found, output, save_codec(model, output, dtype).config)
    if found == "bigvgan":
        generator = content.get("generator", content)
        if not isinstance(generator, Mapping):
            raise UserError(f"{file} is no BigVGAN: its generator is no dictionary of tensors")
        save_vocoder(import_bigvgan(tensors_of(generator), file), output)
    else:
        save_vocoder(import_vocos(tensors_of(content), file), output)
    return Imported(found, output, None)


def _kind_of(content: Mapping[str, Any]) -> Kind | None:
    """By names that only one kind has."""
    state = content.get("state_dict")
    if isinstance(state, Mapping) and any(name.startswith("quantize.") for name in state):
        return "hh-codec"
    if isinstance(content.get("generator"), Mapping) or any(name.startswith("conv_pre.") for name in content):
        return "bigvgan"
    if any(name.startswith("head.out.") for name in content):
        return "vocos"
    return None
