"""Segments from several corpora, mixed by weight."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from codec.foundation import UserError, generator
from data.segments import Segment, SegmentDataset


class MixedSegments(Dataset[Segment]):
    """Segment i comes from a source drawn with the given weights; a pure function of (seed, i)."""

    def __init__(self, sources: Sequence[SegmentDataset], weights: Sequence[float], seed: int = 0) -> None:
        if len(sources) != len(weights) or not sources or min(weights) < 0 or sum(weights) <= 0:
            raise UserError(
                f"{len(sources)} corpora with weights {list(weights)}: give each corpus a weight above 0"
            )
        self.sources = list(sources)
        self.seed = seed
        self._cumulative = np.cumsum(weights) / np.sum(weights)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, index: int) -> Segment:
        draw = generator(self.seed, "mixture", index).random()
        source = int(np.searchsorted(self._cumulative, draw, side="right"))
        return self.sources[min(source, len(self.sources) - 1)][index]
