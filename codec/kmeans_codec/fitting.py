"""Finding the centroids: Lloyd's algorithm from k-means++ starts (Arthur and Vassilvitskii, SODA 2007)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from codec.foundation import UserError
from codec.foundation.random import generator
from codec.kmeans_codec.configuration import KMeansCodecConfig, PatchConfig
from codec.kmeans_codec.modeling import KMeansCodecModel
from codec.nn.kernels import nearest

_START_ROWS = 16  # a centroid: k-means++ looks at every row for every centroid, so it looks at a part of them
_ENOUGH = 1e-4  # relative gain of an iteration below which the next ones are not worth it


@dataclass(frozen=True)
class KMeansFit:
    """Centroids and how well they fit."""

    centroids: Tensor  # (codes, dim) float32
    distance: float  # mean over the rows of the squared distance to the nearest centroid
    iterations: int


@torch.no_grad()
def fit_kmeans(rows: Tensor, codes: int, iterations: int = 25, seed: int = 0) -> KMeansFit:
    """Centroids of (rows, dim): `iterations` of Lloyd's at most, fewer once they gain nothing.

    A centroid that loses all its rows is put on the row that is farthest from its own.
    Raises UserError for fewer rows than codes.
    """
    if len(rows) < codes:
        raise UserError(
            f"{len(rows):,} frames are too few for {codes:,} codes: give more audio, or ask for fewer codes"
        )
    centroids = _start(rows, codes, seed)
    before, done = float("inf"), 0
    while done < iterations:
        done += 1
        labels = nearest(rows, centroids)
        distances = (rows - centroids[labels]).square().sum(dim=1)
        now = float(distances.double().mean())
        centroids = _means(rows, labels, distances, centroids)
        if before - now <= _ENOUGH * now:
            break
        before = now
    final = (rows - centroids[nearest(rows, centroids)]).square().sum(dim=1)
    return KMeansFit(centroids, float(final.double().mean()), done)


def _start(rows: Tensor, codes: int, seed: int) -> Tensor:
    """k-means++: each next centroid is a row, drawn in proportion to its squared distance from those there are."""
    rng = generator(seed, "k-means++")
    if len(rows) > _START_ROWS * codes:
        chosen = rng.choice(len(rows), _START_ROWS * codes, replace=False)
        rows = rows[torch.from_numpy(chosen)]
    norms = rows.square().sum(dim=1)
    picked = [int(rng.integers(len(rows)))]
    left = torch.full((len(rows),), float("inf"))
    while len(picked) < codes:
        last = rows[picked[-1]]
        distances = (norms - 2 * (rows @ last) + norms[picked[-1]]).clamp_min_(0)
        distances[picked[-1]] = 0.0
        left = torch.minimum(left, distances)
        total = left.double().cumsum(dim=0)
        # equal rows, such as digital silence, may leave nothing to choose by
        place = int(torch.searchsorted(total, rng.random() * float(total[-1]), right=True))
        picked.append(min(place, len(rows) - 1))
    return rows[picked].clone()


def _means(rows: Tensor, labels: Tensor, distances: Tensor, former: Tensor) -> Tensor:
    counts = torch.bincount(labels, minlength=len(former))
    sums = torch.zeros(former.shape, dtype=torch.float64).index_add_(0, labels, rows.double())
    means = (sums / counts.clamp_min(1)[:, None]).float()
    if len(empty := (counts == 0).nonzero()[:, 0]):
        means[empty] = rows[distances.topk(len(empty)).indices]
    return means


def kmeans_codec(
    source: Any, codebook_size: int = 2_048, stride: int = 4, name: str = "kmeans"
) -> KMeansCodecModel:
    """A codec on the mel of `source`'s vocoder and with that vocoder; its centroids are still to be fitted.

    source: what `load_codec` gives. A frame is `stride` frames of its mel. Raises UserError for a codec without a
    vocoder, and for one whose mel frames do not tile the samples.
    """
    vocoder = getattr(source.config, "vocoder_config", None)
    if vocoder is None:
        raise UserError(
            f"{source.config.name} has no vocoder that speaks a mel: name another codec's, such as hh-codec-tiny"
        )
    encoder = PatchConfig(mel=replace(vocoder.mel, padding="zeros"), stride=stride)
    streams = encoder.streams and vocoder.streams
    try:
        config = KMeansCodecConfig(
            name=name,
            encoder=asdict(encoder),
            quantizer={"codebook_size": codebook_size},
            vocoder=asdict(vocoder),
            chunk_seconds=None if streams else 20.0,
            overlap_seconds=None if streams else 2.0,
        )
    except ValueError as error:
        raise UserError(f"{source.config.name} lends its vocoder to no k-means: {error}") from None
    model = KMeansCodecModel(config).eval()
    model.vocoder.load_state_dict(source.get_submodule("vocoder").state_dict())
    return model


@torch.no_grad()
def patches(
    model: KMeansCodecModel, waveforms: Iterable[Tensor], share: float = 1.0, seed: int = 0
) -> Tensor:
    """Patches (rows, dim) of recordings (samples,), a random `share` of each recording's."""
    found = []
    for number, waveform in enumerate(waveforms):
        latent = model.encode_to_latent(waveform[None, None]).latent[0]
        if share < 1.0:
            kept = generator(seed, "patches", number).random(len(latent)) < share
            latent = latent[torch.from_numpy(kept)]
        found.append(latent)
    return torch.cat(found) if found else torch.zeros(0, model.config.encoder_config.dim)
