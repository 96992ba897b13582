"""STOI: short-time objective intelligibility (Taal et al., 2011), by pystoi."""

import warnings

from torch import Tensor

from codec.metrics.dependencies import require
from codec.metrics.mel import check_pair


def stoi(reference: Tensor, estimate: Tensor, sampling_rate: int, extended: bool = False) -> float:
    """Intelligibility of the estimate beside the reference, about 0 to 1.

    Both (samples,); what the estimate has beyond the reference is cut. `extended` is ESTOI (Jensen and Taal,
    2016). NaN where less than about 0.4 s is left when silence is taken out. Raises MissingDependency without
    pystoi.
    """
    package = require("pystoi", "STOI")
    check_pair(reference, estimate)
    target = reference.detach().cpu().double().numpy()
    drawn = estimate[: len(reference)].detach().cpu().double().numpy()
    if not target.any():
        return float("nan")
    with warnings.catch_warnings():
        # too short: pystoi warns and answers 1e-5, which would pass for a score
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(package.stoi(target, drawn, sampling_rate, extended=extended))
        except RuntimeWarning:
            return float("nan")
        except ValueError:  # numpy: not even one frame to stack
            return float("nan")
