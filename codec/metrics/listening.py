"""PESQ wide band (ITU-T P.862.2), by the package pesq."""

import math

from torch import Tensor

from codec.metrics.dependencies import require
from codec.metrics.mel import check_pair, resampled

SAMPLING_RATE = 16_000  # of P.862.2
# The reference code has room for 50 stretches of speech (0.3 s or more each, 0.2 s or more apart); with a
# hundred the process dies of a segmentation fault.
MAXIMUM_SECONDS = 20.0


def pesq_wide_band(reference: Tensor, estimate: Tensor, sampling_rate: int) -> float:
    """Predicted listening quality of the estimate beside the reference, 1 to 4.64.

    Both (samples,), resampled to 16 kHz; what the estimate has beyond the reference is cut. More than 20 s is
    scored in equal pieces and averaged. NaN where no piece has speech that PESQ finds, or where it is under
    1/4 s. Raises MissingDependency without the package.
    """
    package = require("pesq", "PESQ")
    check_pair(reference, estimate)
    target = resampled(reference, sampling_rate, SAMPLING_RATE).numpy()
    drawn = resampled(estimate[: len(reference)], sampling_rate, SAMPLING_RATE).numpy()
    pieces = max(1, math.ceil(len(target) / (MAXIMUM_SECONDS * SAMPLING_RATE)))
    scores = []
    for i in range(pieces):
        piece = slice(i * len(target) // pieces, (i + 1) * len(target) // pieces)
        if not target[piece].any() or not drawn[piece].any():
            continue  # the package cannot level digital silence
        try:
            scores.append(float(package.pesq(SAMPLING_RATE, target[piece], drawn[piece], "wb")))
        except (package.NoUtterancesError, package.BufferTooShortError):
            continue
    return sum(scores) / len(scores) if scores else float("nan")
