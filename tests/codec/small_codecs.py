"""Small codecs with every part that the presets have, untrained but calibrated, for tests of laws."""

import copy
import functools
import json
from typing import Any

import pytest
import torch

from codec import CodecModel, UserError, export_codec, preset_config
from codec.configuration import CodecConfig
from codec.loading import model_of
from codec.presets import PRESETS

SMALL_BIGVGAN = {
    # the published hop in three steps, and the shapes of its blocks
    "dim": 64,
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "block_kernel_sizes": [3, 7],
    "block_dilations": [[1, 3], [1, 5]],
}

SMALL_PARTS: dict[str, dict[str, Any]] = {
    "hh-codec": {
        "encoder": {"num_filters": 4, "dim": 32},
        "quantizer": {"codebook_size": 64, "dim": 32, "hidden_dim": 48},
        "decoder": {"dim": 64, "blocks": 2},
        "vocoder": SMALL_BIGVGAN,
    },
    "hh-codec-24hz": {
        "encoder": {"num_filters": 4, "dim": 32},
        "quantizer": {"codebook_size": 64, "dim": 32, "hidden_dim": 48},
        "decoder": {"dim": 64, "blocks": 2, "fine_dim": 32, "fine_blocks": 1},
        "vocoder": SMALL_BIGVGAN,
    },
    "hh-codec-24hz-vocos": {
        "encoder": {"num_filters": 4, "dim": 32},
        "quantizer": {"codebook_size": 64, "dim": 32, "hidden_dim": 48},
        "decoder": {"dim": 64, "blocks": 2, "fine_dim": 32, "fine_blocks": 1},
        "vocoder": {"dim": 48, "hidden_dim": 64, "blocks": 2},
    },
    "hh-codec-24hz-streaming": {
        "encoder": {"num_filters": 4, "dim": 32},
        "quantizer": {"codebook_size": 64, "dim": 32, "hidden_dim": 48},
        "decoder": {"dim": 64, "blocks": 2, "attention_window": 9, "fine_dim": 32, "fine_blocks": 1},
        "vocoder": {"dim": 48, "hidden_dim": 64, "blocks": 2},
    },
    "hh-codec-tiny": {
        "encoder": {"mel_dim": 24, "frame_dim": 32, "dim": 16, "mel_blocks": 1, "frame_blocks": 2},
        "quantizer": {"codebook_size": 64, "dim": 16, "hidden_dim": 24},
        "decoder": {"dim": 32, "blocks": 2, "attention_window": 7, "residual_blocks": 1, "fine_dim": 24},
        "vocoder": {"dim": 32, "hidden_dim": 48, "blocks": 2},
    },
    "hybrid-codec": {
        "encoder": {"num_filters": 2, "dim": 48},
        "quantizer": {
            "dim": 48,
            "semantic_codebook_size": 64,
            "semantic_dim": 48,
            "semantic_hidden_dim": 64,
            "semantic_blocks": 1,
            "acoustic_blocks": 1,
            "acoustic_quantizers": 3,
            "acoustic_codebook_size": 32,
            "codebook_dim": 4,
        },
        "decoder": {"num_filters": 32},
    },
    "hybrid-codec-tiny": {
        "encoder": {"mel_dim": 24, "frame_dim": 32, "dim": 16, "mel_blocks": 1, "frame_blocks": 2},
        "quantizer": {
            "dim": 16,
            "semantic_codebook_size": 64,
            "semantic_dim": 16,
            "semantic_hidden_dim": 32,
            "semantic_blocks": 1,
            "acoustic_blocks": 1,
            "acoustic_quantizers": 3,
            "acoustic_codebook_size": 32,
            "codebook_dim": 4,
        },
        "decoder": {"dim": 32, "blocks": 2, "attention_window": 7, "residual_blocks": 1, "fine_dim": 24},
        "vocoder": {"dim": 32, "hidden_dim": 48, "blocks": 2},
    },
}


def small_config(preset: str, **overrides: Any) -> CodecConfig:
    """The preset's configuration with narrow parts; `overrides` replace top-level fields."""
    fields = dict(PRESETS[preset])
    for part, narrow in SMALL_PARTS[preset].items():
        fields[part] = {**fields.get(part, {}), **narrow}
    return type(preset_config(preset))(name=f"small-{preset}", **{**fields, **overrides})


def small_codec(preset: str, exported: bool = True, seed: int = 0, **overrides: Any) -> CodecModel:
    """A codec of `small_config` whose codes vary with its input; made once, and copied."""
    codec = copy.deepcopy(_small_codec(preset, exported, seed, json.dumps(overrides)))
    torch.manual_seed(seed)  # what a test draws next does not depend on the tests before it
    return codec


@functools.cache
def _small_codec(preset: str, exported: bool, seed: int, overrides: str) -> CodecModel:
    torch.manual_seed(seed)
    model = model_of(small_config(preset, **json.loads(overrides))).eval()
    model.calibrate(speech_like(2, 48_000, seed=seed)[:, None])
    return export_codec(model) if exported else model


def speech_like(rows: int, samples: int, seed: int = 0) -> torch.Tensor:
    """(rows, samples): harmonics with a wandering pitch under a slow envelope, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 24_000
    wander = torch.rand(rows, 1, generator=generator) * 3 + 1
    pitch = 120 + 60 * torch.rand(rows, 1, generator=generator) + 30 * torch.sin(wander * time)
    phase = 2 * torch.pi * torch.cumsum(pitch, dim=1) / 24_000
    voice = sum(torch.sin(k * phase) / k for k in range(1, 12))
    envelope = 0.5 + 0.5 * torch.sin(2 * torch.pi * (2 + wander) * time)
    return 0.2 * envelope * voice + 0.01 * torch.randn(rows, samples, generator=generator)


@torch.no_grad()
def refuses_codes_out_of_range(codec: Any) -> None:
    """Assert that each quantizer's last code is decoded, and no other number behind it or below 0, in any shape."""
    sizes = codec.config.codebook_sizes
    last = torch.tensor(sizes)[None, :, None].expand(1, -1, 3) - 1
    assert codec.decode(last).audio_values.shape[-1] == 3 * codec.config.hop_length
    with pytest.raises(UserError, match=r"codes are whole numbers, not torch\.float32"):
        codec.decode(last.float())
    for quantizer, size in enumerate(sizes):
        for wrong in (size, -1, 60_000):
            codes = last.clone()
            codes[0, quantizer, 2] = wrong
            told = rf"code {wrong} \(row 0, quantizer {quantizer}, frame 2\).* 0 to {size - 1}$"
            with pytest.raises(UserError, match=told):
                codec.decode(codes, torch.ones(1, 3, dtype=torch.bool))
            with pytest.raises(UserError, match=told):
                list(codec.decode_blocks(codes[0]))
    for shape in ((1, len(sizes) + 1, 3), (1, 0, 3), (len(sizes), 3)):
        with pytest.raises(UserError, match="shape"):
            codec.decode(torch.zeros(shape, dtype=torch.long))
