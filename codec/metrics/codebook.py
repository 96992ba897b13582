"""How a codec uses its codebooks: codes in use, perplexity, entropy, bitrate."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class CodebookStatistics:
    """One codebook's use over everything counted."""

    size: int
    frames: int
    used: int  # codes seen at least once
    entropy_bits: float  # of the code distribution, per code; at most log2(size)
    perplexity: float  # 2 ** entropy_bits: as many equally frequent codes would carry the same

    @property
    def nominal_bits(self) -> float:
        """Bits that a code takes when it is stored without modelling: log2(size)."""
        return math.log2(self.size)


class CodebookUse:
    """Counts codes of every quantizer; feed it streams, then ask.

    Args:
        codebook_sizes: codes of each quantizer.
    """

    def __init__(self, codebook_sizes: list[int] | tuple[int, ...]):
        self.counts = [np.zeros(size, dtype=np.int64) for size in codebook_sizes]

    def update(self, codes: Tensor | np.ndarray) -> None:
        """Count the codes (num_quantizers, frames) of one utterance; padding must be cut off before."""
        codes = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        if codes.ndim != 2 or len(codes) != len(self.counts):
            raise ValueError(f"codes are (num_quantizers={len(self.counts)}, frames), not {codes.shape}")
        for quantizer, (row, counts) in enumerate(zip(codes, self.counts, strict=True)):
            if row.size and (row.min() < 0 or row.max() >= len(counts)):
                raise ValueError(
                    f"quantizer {quantizer} has {len(counts)} codes; "
                    f"these run from {int(row.min())} to {int(row.max())}"
                )
            counts += np.bincount(row, minlength=len(counts))

    def statistics(self) -> list[CodebookStatistics]:
        """One entry a quantizer."""
        return [_statistics(counts) for counts in self.counts]

    def nominal_bitrate(self, frame_rate: float) -> float:
        """Bits a second with every code stored in log2(size) bits; `frame_rate` in frames a second."""
        return frame_rate * sum(s.nominal_bits for s in self.statistics())

    def entropy_bitrate(self, frame_rate: float) -> float:
        """Bits a second that an ideal memoryless coder of the counted codes would need."""
        return frame_rate * sum(s.entropy_bits for s in self.statistics())


def _statistics(counts: np.ndarray) -> CodebookStatistics:
    frames = int(counts.sum())
    seen = counts[counts > 0]
    share = seen / max(frames, 1)
    entropy = float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0: a lone code's entropy is 0, not -0
    return CodebookStatistics(len(counts), frames, len(seen), entropy, 2.0**entropy)
