"""What can be said of codes without a neural network: how they are used, and how far they predict each other."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from codec.metrics import CodebookUse
from data import TokenDataset
from slm.evaluation.ngrams import NgramModel

ORDERS = (1, 2, 3)


def code_facts(dataset: Path) -> dict[str, Any]:
    """Use of the codebooks over the training split, and what n-grams of it say of the validation split, row by row."""
    training, held_out = (TokenDataset.open(dataset, split) for split in ("train", "validation"))
    info = training.info
    use = CodebookUse(info.codebook_sizes)
    for stream in _streams(training):
        use.update(stream.reshape(-1, info.num_quantizers).T)
    return {
        "codebooks": [asdict(statistics) for statistics in use.statistics()],
        "counts": [counts.tolist() for counts in use.counts],
        "nominal_bitrate": use.nominal_bitrate(info.frame_rate),
        "entropy_bitrate": use.entropy_bitrate(info.frame_rate),
        "held_out": {
            "ids": [held_out.id(row) for row in range(len(held_out))],
            "tokens": [len(stream) for stream in _streams(held_out)],
        },
        "ngrams": [{"order": order, "bits": _bits(training, held_out, order)} for order in ORDERS],
    }


def _bits(training: TokenDataset, held_out: TokenDataset, order: int) -> list[float]:
    """Of each held-out row, by n-grams of the training rows."""
    model = NgramModel(_streams(training), training.info.codebook_sizes, order)
    told = (model.entropy([stream]) for stream in _streams(held_out))
    return [entropy.bits_per_token * entropy.tokens if entropy.tokens else 0.0 for entropy in told]


def _streams(dataset: TokenDataset) -> Iterator[np.ndarray]:
    return (dataset.codes(row) for row in range(len(dataset)))
