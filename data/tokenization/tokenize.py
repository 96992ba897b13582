"""From a corpus to a token dataset: sharded, resumable, on any number of processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from codec.foundation import Progress, StopSignal
from data.config import TokenizeOptions
from data.corpora.utterance import Corpus, Word
from data.decoding import printable
from data.sharded_directory import FillResult, Shard
from data.tokenization.directory import TokenDirectory, TokenRow
from data.tokenization.pipeline import BatchEncoder, BatchReader, EncodedBatch, Request, encode_batches
from data.tokenization.plan import Plan, identity, make_plan, read_headers
from data.tokenization.summary import understood

_TOLERANCE = 0.1  # seconds by which a word may end after its recording: aligners round to their frames


def tokenize_corpus(
    model: Any,
    corpus: Corpus,
    output: str | os.PathLike[str],
    options: TokenizeOptions | None = None,
    workers: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> FillResult:
    """Encode a corpus with a codec into the token dataset at `output`.

    Process r of w (as the launcher says) makes shards r, r + w, ... and skips those that exist. So a killed run is
    started again, with any number of processes; the files do not depend on kills or processes. Recordings that cannot
    be read go to `failures.jsonl`. SIGTERM and Ctrl-C end the work after the batch; finished shards stay.

    workers: processes that read audio for this one. By default as many as help; on a CPU none, for the encoding
        threads read for themselves.
    announce: is given what was understood of the corpus, some lines, before the work begins.

    Raises UserError when `output` holds a dataset of another codec, corpus or options.
    """
    options = options or TokenizeOptions()
    encoder = BatchEncoder(model, options.precision)
    directory = TokenDirectory(output, identity(corpus, encoder.info, options))
    if directory.prepare():
        return directory.result()
    headers = read_headers(corpus.utterances, directory.path, directory.identity)
    if announce is not None:
        announce(understood(corpus, headers))
    plan = make_plan(corpus, headers, encoder.info, options)
    reader = BatchReader(corpus.utterances, plan, encoder.info.sampling_rate, options.gain)
    work = _Work(encoder, reader, corpus, plan, directory, workers)
    return directory.fill(plan.shards, work.make)


@dataclass(frozen=True)
class _Work:
    """Everything that a shard is made from and with."""

    encoder: BatchEncoder
    reader: BatchReader
    corpus: Corpus
    plan: Plan
    directory: TokenDirectory
    workers: int | None

    def make(self, shards: Sequence[Shard], stop: StopSignal) -> None:
        """Encode and write the shards that are not there yet, in order, until asked to stop."""
        seconds = self.plan.samples / self.encoder.info.sampling_rate
        todo = [shard for shard in shards if not self.directory.has(shard)]
        total, left = (float(sum(seconds[s.start : s.stop].sum() for s in group)) for group in (shards, todo))
        draft: _Draft | None = None
        with (
            Progress(total, label="tokenizing", done_before=total - left) as progress,
            closing(encode_batches(self.encoder, self.reader, self._requests(todo), self.workers)) as batches,
        ):
            for encoded in batches:
                request = encoded.batch.request
                if draft is None or draft.shard != request.shard:
                    draft = _Draft(request.shard, self.corpus, self.plan, self.encoder.info.sampling_rate)
                draft.add(encoded)
                progress.update(float(seconds[request.rows].sum()))
                if request.last:
                    self.directory.write_rows(draft.shard, draft.rows(), draft.failures())
                    draft = None
                if stop.requested:
                    return

    def _requests(self, shards: Sequence[Shard]) -> Iterator[Request]:
        """The batches of all shards in turn, without those of shards that another process has finished meanwhile."""
        for shard in shards:
            if self.directory.has(shard):
                continue
            batches = self.plan.batches(shard)
            for number, rows in enumerate(batches):
                yield Request(shard, rows, last=number == len(batches) - 1)


class _Draft:
    """A shard in the making: rows come in the order of batches and leave in the order of the plan."""

    def __init__(self, shard: Shard, corpus: Corpus, plan: Plan, sampling_rate: int) -> None:
        self.shard = shard
        self._corpus, self._plan, self._rate = corpus, plan, sampling_rate
        self._rows: dict[int, TokenRow] = {}
        self._failures: dict[int, str] = {}

    def add(self, encoded: EncodedBatch) -> None:
        batch = encoded.batch
        self._failures |= batch.failures
        for row, samples, stream, voice in zip(
            batch.rows, batch.lengths, encoded.streams, encoded.voices, strict=True
        ):
            utterance = self._corpus.utterances[self._plan.utterance[row]]
            variant = self._plan.variants[self._plan.variant[row]]
            words = variant.words(utterance.words, self._rate)
            if late := _beyond(words, samples / self._rate):
                self._failures[row] = f"{printable(str(utterance.path))}: {late}"
                continue
            self._rows[row] = TokenRow(
                id=self._id(row),
                codes=stream,
                seconds=samples / self._rate,
                text=utterance.text,
                speaker=utterance.speaker,
                language=utterance.language,
                words=words,
                voice=voice,
            )

    def rows(self) -> list[TokenRow]:
        return [self._rows[number] for number in sorted(self._rows)]

    def failures(self) -> list[dict[str, str]]:
        return [{"id": self._id(row), "reason": self._failures[row]} for row in sorted(self._failures)]

    def _id(self, row: int) -> str:
        variant = self._plan.variants[self._plan.variant[row]]
        return self._corpus.utterances[self._plan.utterance[row]].id + variant.suffix


def _beyond(words: Sequence[Word] | None, seconds: float) -> str | None:
    """What is wrong with words that end after their recording; None if none does."""
    for word, _, end in words or ():
        if end is not None and end > seconds + _TOLERANCE:
            return f"the word {word!r} ends at {end:.2f} s, the recording at {seconds:.2f} s"
    return None
