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
    """Use of the codebooks over the training split, and n-gram entropies of the validation split given the former."""
    training, held_out = (TokenDataset.open(dataset, split) for split in ("train", "validation"))
    info = training.info
    use = CodebookUse(info.codebook_sizes)
    for stream in _streams(training):
        use.update(stream.reshape(-1, info.num_quantizers).T)
    tokens_a_second = info.frame_rate * info.num_quantizers
    ngrams = []
    for order in ORDERS:
        entropy = NgramModel(_streams(training), info.codebook_sizes, order).entropy(_streams(held_out))
        ngrams.append({**asdict(entropy), "bits_per_second": entropy.bits_per_token * tokens_a_second})
    return {
        "codebooks": [asdict(statistics) for statistics in use.statistics()],
        "counts": [counts.tolist() for counts in use.counts],
        "nominal_bitrate": use.nominal_bitrate(info.frame_rate),
        "entropy_bitrate": use.entropy_bitrate(info.frame_rate),
        "ngrams": ngrams,
    }


def _streams(dataset: TokenDataset) -> Iterator[np.ndarray]:
    return (dataset.codes(row) for row in range(len(dataset)))
