"""Codecs to time: this project's presets and bundled codecs, and `transformers`' at their published sizes.

Weights are random where none are bundled: they cost what trained ones cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codec.foundation import seed_globals

MIMI, ENCODEC, DAC = "MimiModel", "EncodecModel", "DacModel"
_SEED = 0


@dataclass(frozen=True)
class Contestant:
    """A codec on its device."""

    name: str
    sampling_rate: int
    about: str  # for the table
    encode: Callable[[Tensor], Any]  # (1, 1, samples) -> what `decode` takes
    decode: Callable[[Any], Tensor]


def contestant_names() -> list[str]:
    """All that there are: the reference codecs, then ours."""
    from codec import bundled_codecs
    from codec.families import PRESETS

    return [MIMI, ENCODEC, DAC, *dict.fromkeys([*sorted(PRESETS), *bundled_codecs()])]


def build(name: str, device: str) -> Contestant:
    """The contestant `name`, of `contestant_names`."""
    seed_globals(_SEED, name)
    with torch.no_grad():
        if name in _REFERENCES:
            return _REFERENCES[name](device)
        return _ours(name, device)


def speech_like(sampling_rate: int, seconds: float) -> Tensor:
    """(1, 1, samples) of harmonics in syllables over some noise: what is timed on."""
    time = torch.arange(round(seconds * sampling_rate)) / sampling_rate
    pitch = 120.0 + 20.0 * torch.sin(2.0 * torch.pi * 0.3 * time)
    phase = 2.0 * torch.pi * torch.cumsum(pitch, dim=0) / sampling_rate
    voice = torch.stack([torch.sin(k * phase) / k for k in range(1, 20)]).sum(dim=0)
    syllables = (0.5 + 0.5 * torch.sin(2.0 * torch.pi * 3.0 * time)).square()
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(_SEED))
    return (0.2 * syllables * voice + 0.003 * noise)[None, None]


def _ours(name: str, device: str) -> Contestant:
    from transformers import AutoModel

    from codec import bundled_codecs, export_codec, load_codec, preset_config

    bundled = name in bundled_codecs()
    model: Any = (
        load_codec(name) if bundled else export_codec(AutoModel.from_config(preset_config(name)).eval())
    )
    model.to(device)
    about = "bundled" if bundled else "random weights"
    return Contestant(
        name,
        model.config.sampling_rate,
        f"{about}; {model.config.frame_rate:g} Hz × {model.config.num_quantizers}",
        lambda audio: model.encode(audio).audio_codes,
        lambda codes: model.decode(codes).audio_values,
    )


def _mimi(device: str) -> Contestant:
    from transformers import MimiConfig, MimiModel

    model = MimiModel(MimiConfig()).eval().to(device)
    return Contestant(
        MIMI,
        model.config.sampling_rate,
        f"random weights; {model.config.frame_rate:g} Hz × {model.config.num_quantizers}",
        lambda audio: model.encode(audio).audio_codes,
        lambda codes: model.decode(codes).audio_values,
    )


def _encodec(device: str) -> Contestant:
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig()).eval().to(device)
    return Contestant(
        ENCODEC,
        model.config.sampling_rate,
        f"random weights; {model.config.frame_rate:g} Hz × 8",
        lambda audio: model.encode(audio, bandwidth=6.0),
        lambda encoded: model.decode(encoded.audio_codes, encoded.audio_scales).audio_values,
    )


def _dac(device: str) -> Contestant:
    from transformers import DacConfig, DacModel

    # descript/dac_24khz
    config = DacConfig(downsampling_ratios=[2, 4, 5, 8], n_codebooks=32, sampling_rate=24_000)
    model = DacModel(config).eval().to(device)
    return Contestant(
        DAC,
        config.sampling_rate,
        f"random weights; {config.frame_rate:g} Hz × {config.n_codebooks}",
        lambda audio: model.encode(audio).audio_codes,
        lambda codes: model.decode(audio_codes=codes).audio_values,
    )


_REFERENCES: dict[str, Callable[[str], Contestant]] = {MIMI: _mimi, ENCODEC: _encodec, DAC: _dac}
