"""The HH-Codecs by name."""

from typing import Any

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
    # exactly 24 Hz, full size: for training at scale
    "hh-codec-24hz": {
        "encoder": {"kind": "seanet", "ratios": [5, 5, 5, 8]},
        "vocoder": {"kind": "bigvgan"},
    },
    # exactly 24 Hz, published widths, with Vocos in BigVGAN's place: runs on a CPU
    "hh-codec-24hz-vocos": {
        "encoder": {"kind": "seanet", "ratios": [5, 5, 5, 8]},
        "vocoder": {"kind": "vocos", "mel": VOCOS_MEL_24KHZ},
    },
    # exactly 24 Hz, full size, built of parts that stream: what it waits for is two frames of codes and a twentieth of
    # a second in the vocoder; nothing in the encoder
    "hh-codec-24hz-streaming": {
        "encoder": {"kind": "seanet", "ratios": [5, 5, 5, 8], "padding": "zeros", "bidirectional": False},
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
