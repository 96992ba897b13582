"""Parts that the small presets share: of two codecs with like parts, one can start from what the other has learned."""

from typing import Any

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
