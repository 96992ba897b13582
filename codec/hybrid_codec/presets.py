"""The HybridCodecs by name."""

from typing import Any

from codec.hh_codec.presets import TINY_MEL_DECODER, TINY_VOCODER

# The encoder is that of hh-codec-tiny, so that training can start from it.
_TINY_MEL = {"n_fft": 1_000, "hop_length": 240}

HYBRID_PRESETS: dict[str, dict[str, Any]] = {
    # 25 Hz, twelve quantizers; the sizes are DualCodec's, for the paper gives none
    "hybrid-codec": {},
    # The same streams and quantizers, small. It starts from log-mel and decodes through mel and Vocos: convolutions on
    # the waveform would take days of a CPU to learn what this learns in an hour. Built of parts that stream.
    "hybrid-codec-tiny": {
        "encoder": {"kind": "log-mel", "mel": {**_TINY_MEL, "padding": "zeros"}},
        "quantizer": {
            "dim": 128,
            "semantic_codebook_size": 2_048,
            "semantic_dim": 256,
            "semantic_hidden_dim": 768,
            "semantic_blocks": 2,
            "layer_scale": 0.3,
            "codebook_transform_dim": 256,
            "quantizer_dropout": 0.5,
        },
        "decoder": {**TINY_MEL_DECODER, "dim": 128, "fine_dim": 96},
        "vocoder": {**TINY_VOCODER, "mel": _TINY_MEL, "dim": 160, "hidden_dim": 384, "blocks": 4},
        "chunk_seconds": None,
        "overlap_seconds": None,
    },
}
