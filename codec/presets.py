"""Codecs by name: configurations of presets, and the bundled models."""

from pathlib import Path
from typing import Any

from codec.foundation.errors import is_hub_id, not_found

PARTS = ("encoder", "quantizer", "decoder", "vocoder")  # of a model, each with a configuration of its own

CHECKPOINTS = Path(__file__).parent / "checkpoints"  # of the bundled codecs

# Parts that the small presets share: of two codecs with like parts, one can start from what the other has learned.
TINY_MEL_DECODER: dict[str, Any] = {
    "dim": 288,
    "lookahead": 2,
    "attention_window": 48,
    "residual_blocks": 0,
    "dropout": 0.0,
    "blocks": 4,
    "layer_scale": 0.3,
    "fine_dim": 192,
    "fine_blocks": 2,
}
TINY_VOCODER: dict[str, Any] = {
    "kind": "vocos",
    "dim": 256,
    "hidden_dim": 512,
    "blocks": 5,
    "lookahead": 2,
    "mel_mean": -5.9,
    "mel_std": 1.8,
}

VOCOS_MEL_24KHZ: dict[str, Any] = {
    # charactr/vocos-mel-24khz was trained on these
    "n_fft": 1_024,
    "hop_length": 256,
    "mel_scale": "htk",
    "norm": None,
    "floor": 1e-7,
    "alignment": "center",
}

HH_PRESETS: dict[str, dict[str, Any]] = {
    # the published geometry, layer for layer (arXiv 2507.18897). Its frames are 23.4375 a second: the paper's 24 is
    # rounded. mel_mean and mel_std undo nothing there, so they undo nothing here.
    "hh-codec": {
        "encoder": {"kind": "seanet", "ratios": [4, 4, 8, 8]},
        "decoder": {"fine_dim": None, "mel_mean": 0.0, "mel_std": 1.0},
        "vocoder": {"kind": "bigvgan"},
    },
    # exactly 24 Hz, full size: for training at scale. Gradients pass the quantizer straight through: by rotation the
    # latents shrink and fewer codes stay in use (recipes/hh_codec/README.md)
    "hh-codec-24hz": {
        "encoder": {"kind": "seanet", "ratios": [5, 5, 5, 8]},
        "quantizer": {"gradient": "straight-through"},
        "vocoder": {"kind": "bigvgan"},
    },
    # exactly 24 Hz, published widths, with Vocos in BigVGAN's place: runs on a CPU
    "hh-codec-24hz-vocos": {
        "encoder": {"kind": "seanet", "ratios": [5, 5, 5, 8]},
        "quantizer": {"gradient": "straight-through"},
        "vocoder": {"kind": "vocos", "mel": VOCOS_MEL_24KHZ},
    },
    # exactly 24 Hz, full size, built of parts that stream: what it waits for is two frames of codes and a twentieth of
    # a second in the vocoder; nothing in the encoder
    "hh-codec-24hz-streaming": {
        "encoder": {"kind": "seanet", "ratios": [5, 5, 5, 8], "padding": "zeros", "bidirectional": False},
        "quantizer": {"gradient": "straight-through"},
        "decoder": {"lookahead": 2, "attention_window": 96},
        "vocoder": {"kind": "vocos", "lookahead": 2, "mel_mean": -5.9, "mel_std": 1.8},
        "chunk_seconds": None,
        "overlap_seconds": None,
    },
    # exactly 24 Hz, small, built of parts that stream
    "hh-codec-tiny": {
        "encoder": {"kind": "log-mel"},
        "quantizer": {"codebook_size": 2_048, "dim": 128, "hidden_dim": 256, "gradient": "straight-through"},
        "decoder": TINY_MEL_DECODER,
        "vocoder": TINY_VOCODER,
        "chunk_seconds": None,
        "overlap_seconds": None,
    },
}


# The encoder is that of hh-codec-tiny, so that training can start from it.
_TINY_MEL = {"n_fft": 1_000, "hop_length": 240}

HYBRID_PRESETS: dict[str, dict[str, Any]] = {
    # as published, its HC-SED-AED: 25 Hz, twelve quantizers, four stacks of ConvNeXt blocks, 159.62 M parameters
    "hybrid-codec": {"quantizer": {"acoustic_blocks": 5, "weight_norm": True}},
    # The same streams and quantizers, small. It starts from log-mel and decodes through mel and Vocos: convolutions on
    # the waveform would take days of a CPU to learn what this learns in an hour. Built of parts that stream.
    "hybrid-codec-tiny": {
        "encoder": {"kind": "log-mel", "mel": {**_TINY_MEL, "padding": "zeros"}},
        "quantizer": {
            "dim": 128,
            "semantic_codebook_size": 2_048,
            "semantic_dim": 128,
            "semantic_hidden_dim": 256,
            "acoustic_blocks": 5,
            "weight_norm": True,
            "codebook_transform_dim": 256,
            "quantizer_dropout": 0.5,
        },
        "decoder": {**TINY_MEL_DECODER, "dim": 128, "fine_dim": 96},
        "vocoder": {**TINY_VOCODER, "mel": _TINY_MEL, "dim": 160, "hidden_dim": 384, "blocks": 4},
        "chunk_seconds": None,
        "overlap_seconds": None,
    },
}

PRESETS: dict[str, dict[str, Any]] = HH_PRESETS | HYBRID_PRESETS


def bundled_codecs() -> list[str]:
    """Names of the codecs that come with the package."""
    return sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))


def check_codec_name(name: str) -> None:
    """Raises UserError for a name that is neither bundled, nor a path on this machine, nor a hub id (owner/name)."""
    path = Path(name)
    if name in bundled_codecs() or path.exists():
        return
    if not is_hub_id(name):
        raise not_found("codec", name, bundled_codecs())
