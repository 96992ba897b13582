"""What a run tells: what an epoch is made of, as it was asked for and as it came out, and numbers to trackers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from codec.foundation import UserError, plain_config
from slm.documents.documents import DocumentCounts, Documents
from slm.documents.formats import FORMATS
from slm.documents.long_rows import RowParts
from slm.packing.blocks import PackedBlocks


def check_formats(documents: Documents, counts: DocumentCounts) -> None:
    """Raise UserError for a format that is asked for and that no row can become; counts: of an epoch."""
    for name, drawn in counts.drawn.items():
        if not counts.documents.get(name) and not documents.can_make(name):
            raise UserError(
                f"documents.formats asks for {name}, but no row can become one: of {drawn:,} drawn, "
                f"{_became(documents, counts, name)}: leave it out, or give it what it needs"
            )


def report_epoch(
    blocks: PackedBlocks,
    counts: DocumentCounts,
    names: Sequence[str],
    weights: Sequence[float | None],
    budget: int | None,
) -> tuple[list[str], dict[str, float]]:
    """Lines for a person, and numbers for the log.

    counts are of the epoch, names and weights those of the sources; budget: places in blocks that the run trains on,
    None if not known.
    """
    documents, plan, epoch = blocks.documents, blocks.plan, blocks.epoch
    places = len(plan) * plan.block_length
    lines = [
        f"epoch {epoch}: {sum(counts.documents.values()):,} documents, {counts.tokens:,} tokens in {len(plan):,} "
        f"blocks of {plan.block_length:,}, {plan.fill:.1%} full; {plan.cut_documents:,} documents are longer than a "
        "block and cut into pieces"
    ]
    values: dict[str, float] = {
        "data/documents": sum(counts.documents.values()),
        "data/tokens": counts.tokens,
        "data/fill": plan.fill,
        "data/cut_documents": plan.cut_documents,
        "data/too_long": sum(counts.too_long.values()),
    }
    asked = sum(weight or 0.0 for weight in weights)
    for number, (name, weight) in enumerate(zip(names, weights, strict=True)):
        share = counts.tokens_of_source[number] / max(counts.tokens, 1)
        rows = len(documents.sources[number].dataset)
        epochs = (
            counts.documents_of_source[number] / max(rows, 1) * (1.0 if budget is None else budget / places)
        )
        lines.append(
            f"source {name}: {rows:,} rows, {share:.1%} of the tokens"
            + (f" (asked {weight / asked:.1%})" if weight is not None and asked else "")
            + (
                f", {epochs:.2f} times in an epoch"
                if budget is None
                else f", {epochs:.2f} epochs in this phase"
            )
        )
        values |= {f"data/source_share/{name}": share, f"data/epochs/{name}": epochs}
    for name in dict.fromkeys([*counts.drawn, *counts.documents]):
        drawn, made = counts.drawn.get(name, 0), counts.documents.get(name, 0)
        share = counts.tokens_of_format.get(name, 0) / max(counts.tokens, 1)
        became = _became(documents, counts, name)
        lines.append(
            f"format {name}: {drawn:,} drawn, {made:,} made, {share:.1%} of the tokens"
            + (f"; {became}" if became else "")
        )
        values |= {f"data/drawn/{name}": drawn, f"data/made/{name}": made, f"data/format_share/{name}": share}
    parts = [source.dataset.parts for source in documents.sources if isinstance(source.dataset, RowParts)]
    cut = sum(len({part.row for part in of_source}) for of_source in parts)
    values |= {"data/cut_rows": cut, "data/row_parts": sum(map(len, parts))}
    if cut:
        lines.append(
            f"{cut:,} rows of text and speech are longer than a block: cut before words into "
            f"{sum(map(len, parts)):,} rows"
        )
    if counts.too_long:
        lines.append(
            f"{sum(counts.too_long.values()):,} documents are longer than a block (batch.length {documents.longest}) "
            "and have no words to cut at: they became tts or, where that is too long, speech without its text"
        )
    return lines, values


def _became(documents: Documents, counts: DocumentCounts, name: str) -> str:
    """What documents of a format became that could not be made, and why: `3 became tts (3 lack ...)`; "" for none."""
    became = {made: count for (drawn, made), count in counts.became.items() if drawn == name}
    too_long = counts.too_long.get(name, 0)
    lacking = sum(became.values()) - too_long
    why = [f"{lacking:,} lack {_needs(name)}"] * bool(lacking)
    why += [f"{too_long:,} are longer than a block (batch.length {documents.longest})"] * bool(too_long)
    made = ", ".join(f"{count:,} became {made}" for made, count in became.items())
    return f"{made} ({'; '.join(why)})" if made else ""


def _needs(name: str) -> str:
    format = FORMATS[name]
    needs = ["text"] * format.needs_text + ["speech"] * format.needs_speech
    if format.needs_words or format.needs_placed:
        needs.append("words with times that spell the text (codec-slm align)")
    return " and ".join(needs)


# ---- experiment trackers by name, as accelerate knows them: wandb, trackio, mlflow, comet_ml, aim, swanlab ...

TENSORBOARD = "tensorboard"  # the run directory writes it itself
_PROJECT = "codec-slm"


def check_trackers(names: list[str]) -> list[str]:
    """The trackers that accelerate runs: all but TensorBoard.

    Raises UserError for unknown names and trackers that are not installed; accelerate would ignore them.
    """
    wanted = [name for name in names if name != TENSORBOARD]
    installed = {str(name) for name in get_available_trackers()}
    for name in wanted:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"no tracker is called {name!r}; accelerate knows {known}")
        if name not in installed:
            raise UserError(f"the tracker {name} is not installed: pip install {name}")
    return wanted


def start_trackers(accelerator: Accelerator, config: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Start a tracked run. `options` are the arguments of each tracker by its name (`{wandb: {name: run-1}}`)."""
    if accelerator.log_with:
        plain = plain_config(config)
        accelerator.init_trackers(
            _PROJECT, config=plain, init_kwargs={name: dict(entry) for name, entry in options.items()}
        )


def track(accelerator: Accelerator, step: int, values: Mapping[str, float]) -> None:
    """Send the numbers of one step to all trackers, except NaN and infinity: some trackers refuse them."""
    if accelerator.trackers:
        accelerator.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers send what they still hold."""
    # Not accelerator.end_training: it would end the process group too.
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
