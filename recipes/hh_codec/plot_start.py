"""Codes in use and mel distance over training runs, from their validations: `plot_start.py OUTPUT.png RUN...`."""

import sys
from pathlib import Path

from codec.foundation import RunDirectory
from recipes.reporting.pictures import Curve, curves_picture


def curve(run: str, ending: str) -> Curve:
    """The mean over the validation sets of what `validation/` has with this ending."""
    lines = [line for line in RunDirectory(run).read_log() if "validation/score" in line]
    found = [[value for name, value in line.items() if name.endswith(ending)] for line in lines]
    return Curve([line["step"] for line in lines], [sum(v) / len(v) for v in found], Path(run).name)


if __name__ == "__main__":
    panels = {"perplexity": "validation/perplexity", "log-mel L1": "/mel_l1"}
    output, *runs = sys.argv[1:]
    curves_picture(
        output, {label: [curve(run, end) for run in runs] for label, end in panels.items()}, "step"
    )
