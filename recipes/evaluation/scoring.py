"""Scores waveforms in worker processes: waveform metrics and speech recognition, in the order of the tasks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import torch

from codec.foundation import UserError, worker_context
from codec.metrics import (
    POCKETSPHINX,
    WAVEFORM_METRICS,
    EditCounts,
    Judge,
    MissingDependency,
    Recognizer,
    WaveformMetric,
    character_errors,
    is_english,
    normalize_english,
    normalize_transcript,
    open_recognizer,
    require,
    score_waveforms,
    usable_metrics,
    word_errors,
)

NO_RECOGNIZER = "none"
ERROR_RATES = "word and character error rate"  # what `skipped` calls them
_TASKS_AHEAD = 4  # waveforms waiting for each worker: bounds the memory on corpora of any size

Key = TypeVar("Key")


@dataclass(frozen=True)
class ScoringTask:
    """One waveform and what it is compared with."""

    estimate: np.ndarray  # (samples,) float32
    sampling_rate: int
    reference: np.ndarray | None = None  # (samples',) float32, not longer; None: only metrics that need none
    text: str | None = None  # what was said; None: no error rates
    transcribe: bool = False  # let the recogniser hear it even so
    language: str | None = None  # name or code, of `text`

    @property
    def heard(self) -> bool:
        """Whether the recogniser is to hear it."""
        return self.transcribe or self.text is not None


@dataclass(frozen=True)
class Scores:
    """What came out for one task."""

    values: dict[str, float] = field(default_factory=dict)  # by column key
    transcript: str | None = None  # what the recogniser heard
    words: EditCounts | None = None
    characters: EditCounts | None = None


class Scorer:
    """Runs tasks through metrics and a recogniser.

    Args:
        metrics: names from `WAVEFORM_METRICS`; what is not installed is named in `skipped`.
        asr: "pocketsphinx", "none", "faster-whisper:DIRECTORY", or a Hugging Face model; the last two run in this
            process on `device`.
        processes: workers; 1 works in this process.
        language: for a multilingual Whisper.
        judges: more metrics, in this process.
        not_given: metrics that could have been measured, and what it would have taken; joins `skipped`.

    Raises UserError for an unknown metric or a model that cannot be loaded.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None,
        asr: str = POCKETSPHINX,
        processes: int = 2,
        device: str | torch.device = "cpu",
        language: str | None = None,
        judges: Sequence[Judge] = (),
        not_given: Mapping[str, str] | None = None,
    ):
        usable = usable_metrics(_metrics_by_name(metrics))
        self.columns = (*usable.columns, *(judge.column for judge in judges))
        # whether anything can be said of a recording by itself
        needs = [metric.needs_reference for metric in usable.metrics] + [j.needs_reference for j in judges]
        self.judges_recordings = not all(needs)
        self.skipped = {**usable.skipped, **(not_given or {})}
        self._judges = tuple(judges)
        self.asr: str | None = None if asr == NO_RECOGNIZER else asr
        self._local: Recognizer | None = None
        self._language = language
        in_worker = False
        if self.asr is not None:
            try:
                require("jiwer", "the word error rate")
                if self.asr == POCKETSPHINX:
                    require(POCKETSPHINX, "speech recognition with pocketsphinx")
                    in_worker = True
                else:
                    self._local = open_recognizer(self.asr, device, language)
            except MissingDependency as missing:
                self.skipped[ERROR_RATES] = str(missing)
                self.asr = None
        names = tuple(metric.name for metric in usable.metrics)
        self._bench: _Workbench | None = None
        self._pool: ProcessPoolExecutor | None = None
        if processes <= 1:
            self._bench = _Workbench(names, in_worker)
        elif names or in_worker:
            self._pool = ProcessPoolExecutor(
                processes,
                mp_context=worker_context(__name__),
                initializer=_start_worker,
                initargs=(names, in_worker),
            )
        else:
            self._bench = _Workbench((), False)
        self._ahead = _TASKS_AHEAD * max(1, processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, tasks: Iterable[tuple[Key, ScoringTask]]) -> Iterator[tuple[Key, Scores]]:
        """Score (key, task) pairs as they come; results keep their order."""
        waiting: deque[_Waiting[Key]] = deque()
        for key, task in tasks:
            waiting.append(_Waiting(key, task, self._submit(task)))
            if len(waiting) > self._ahead:
                yield self._finish(waiting.popleft())
        while waiting:
            yield self._finish(waiting.popleft())

    def _submit(self, task: ScoringTask) -> "Future[Scores]":
        if self._pool is not None:
            try:
                return self._pool.submit(_score_in_worker, task)
            except BrokenProcessPool as broken:
                raise _worker_died() from broken
        assert self._bench is not None
        done: Future[Scores] = Future()
        done.set_result(self._bench.score(task))
        return done

    def _finish(self, item: "_Waiting[Key]") -> tuple[Key, Scores]:
        try:
            scores = item.future.result()
        except BrokenProcessPool as broken:
            raise _worker_died() from broken
        if self._local is not None and item.task.heard:
            heard = self._local.transcribe(torch.from_numpy(item.task.estimate), item.task.sampling_rate)
            english = self._local.writes_digits and is_english(self._language or item.task.language)
            normalize = normalize_english if english else normalize_transcript
            scores = _with_transcript(scores, item.task.text, heard, normalize)
        return item.key, self._judged(scores, item.task)

    def _judged(self, scores: Scores, task: ScoringTask) -> Scores:
        estimate = torch.from_numpy(task.estimate)
        reference = None if task.reference is None else torch.from_numpy(task.reference)
        if reference is not None:
            estimate = estimate[: len(reference)]
        judged = {
            judge.column.key: judge(reference, estimate, task.sampling_rate)
            for judge in self._judges
            if reference is not None or not judge.needs_reference
        }
        return replace(scores, values={**scores.values, **judged})


@dataclass(frozen=True)
class _Waiting(Generic[Key]):
    key: Key
    task: ScoringTask
    future: "Future[Scores]"


class _Workbench:
    """What one worker holds."""

    def __init__(self, metrics: tuple[str, ...], with_pocketsphinx: bool):
        self.metrics = _metrics_by_name(metrics)
        self.recognizer = open_recognizer(POCKETSPHINX) if with_pocketsphinx else None

    def score(self, task: ScoringTask) -> Scores:
        estimate = torch.from_numpy(task.estimate)
        reference = None if task.reference is None else torch.from_numpy(task.reference)
        scores = Scores(score_waveforms(reference, estimate, task.sampling_rate, self.metrics))
        if self.recognizer is None or not task.heard:
            return scores
        return _with_transcript(scores, task.text, self.recognizer.transcribe(estimate, task.sampling_rate))


_worker_bench: _Workbench | None = None


def _start_worker(metrics: tuple[str, ...], with_pocketsphinx: bool) -> None:
    global _worker_bench
    torch.set_num_threads(1)  # the workers share the cores by being several
    _worker_bench = _Workbench(metrics, with_pocketsphinx)


def _score_in_worker(task: ScoringTask) -> Scores:
    assert _worker_bench is not None
    return _worker_bench.score(task)


def _with_transcript(
    scores: Scores, text: str | None, heard: str, normalize: Callable[[str], str] = normalize_transcript
) -> Scores:
    if text is None:
        return replace(scores, transcript=heard)
    words, characters = word_errors(text, heard, normalize), character_errors(text, heard, normalize)
    return Scores(scores.values, heard, words, characters)


def _metrics_by_name(names: Sequence[str] | None) -> tuple[WaveformMetric, ...]:
    known = {metric.name: metric for metric in WAVEFORM_METRICS}
    if names is None:
        return WAVEFORM_METRICS
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"no metric {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[name] for name in names)


def _worker_died() -> UserError:
    return UserError("a scoring process died, probably for want of memory: try again with --processes 1")
