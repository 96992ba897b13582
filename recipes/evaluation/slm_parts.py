"""The parts of `evaluate-slm`, one after the other: what was measured is kept, whatever becomes of the rest."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from codec.foundation import UserError
from recipes.evaluation.slm_evaluation import SLMEvaluation

Part = Callable[[SLMEvaluation], SLMEvaluation]  # what was measured so far -> with its own beside it


def measure_parts(evaluation: SLMEvaluation, parts: Mapping[str, Part]) -> Iterator[SLMEvaluation]:
    """What was measured, after every part; a part of which nothing can be measured joins what was skipped.

    Raises UserError at the end where nothing could be measured at all.
    """
    failed: dict[str, str] = {}
    for number, (name, part) in enumerate(parts.items()):
        try:
            evaluation = part(evaluation)
        except UserError as error:
            failed[name] = str(error)
        if len(failed) <= number:
            skipped = {**evaluation.skipped, **failed}
            evaluation = replace(evaluation, skipped=skipped, unfinished=list(parts)[number + 1 :])
            yield evaluation
    if len(failed) == len(parts):
        raise UserError("; ".join(failed.values()))
