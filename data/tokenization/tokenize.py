"""From a corpus to a token dataset: sharded, resumable, on any number of processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codec.foundation import Progress, StopSignal
from data.config import TokenizeOptions
from data.corpora.utterance import Corpus, Word
from data.decoding import printable
from data.scan import read_headers, stored_below
from data.sharded_directory import FillResult, Shard
from data.tokenization.directory import TokenDirectory, TokenRow
from data.tokenization.pipeline import BatchEncoder, BatchReader, EncodedBatch, encode_batches
from data.tokenization.plan import Plan, Request, ShardRows
from data.tokenization.summary import understood

_TOLERANCE = 0.1  # seconds by which a word may end after its recording: aligners round to their frames


def tokenize_corpus(
    model: Any,
    corpus: Corpus | Callable[[Path], Corpus],
    output: str | os.PathLike[str],
    options: TokenizeOptions | None = None,
    workers: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> FillResult:
    """Encode a corpus with a codec into the token dataset at `output`.

    Process r of w (as the launcher says) makes shards r, r + w, ... and skips those that exist. So a killed run is
    started again, with any number of processes; the files do not depend on kills or processes. Recordings that cannot
    be read go to `failures.jsonl`. SIGTERM and Ctrl-C end the work after the batch; finished shards stay.

    corpus: one, or a function that lists it into a directory (see `data.scan`). It is called with `output` when
        nothing there speaks against it. Only a scanned corpus takes no more memory when it is larger.
    workers: processes that read audio for this one. By default as many as help; on a CPU none, for the encoding
        threads read for themselves.
    announce: is given what was understood of the corpus, some lines, before the work begins.

    Raises UserError when `output` holds a dataset of another codec, corpus or options.
    """
    options = options or TokenizeOptions()
    encoder = BatchEncoder(model, options.precision)
    about = {"codec": encoder.info.to_dict(), "options": asdict(options)}
    directory = TokenDirectory(output, about)
    if not isinstance(corpus, Corpus):
        if directory.path.exists():
            directory.prepare()
        corpus = corpus(directory.path)
    directory = TokenDirectory(output, about | {"corpus": corpus.identity()})
    if directory.prepare():
        return directory.result()
    directory.begin()
    with directory.until_whole():
        scanned = stored_below(directory.path, corpus)
        manifest = scanned.manifest
        read_headers(manifest)
        if announce is not None:
            announce(understood(scanned, manifest.seconds()))
        plan = Plan(manifest, list(scanned.splits), encoder.info, options)
        reader = BatchReader(encoder.info.sampling_rate, options.gain)
        work = _Work(encoder, reader, plan, directory, workers)
        return directory.fill(plan.shards, work.make)
    return directory.result()


@dataclass(frozen=True)
class _Work:
    """Everything that a shard is made from and with."""

    encoder: BatchEncoder
    reader: BatchReader
    plan: Plan
    directory: TokenDirectory
    workers: int | None
    drafts: dict[Shard, "_Draft"] = field(default_factory=dict)  # shards that are being made

    def make(self, shards: Sequence[Shard], stop: StopSignal) -> None:
        """Encode and write the shards that are not there yet, in order, until asked to stop."""
        seconds = dict(zip(self.plan.shards, self.plan.seconds, strict=True))
        todo = [shard for shard in shards if not self.directory.has(shard)]
        total, left = (sum(seconds[shard] for shard in group) for group in (shards, todo))
        with (
            Progress(total, label="tokenizing", done_before=total - left) as progress,
            closing(encode_batches(self.encoder, self.reader, self._requests(todo), self.workers)) as batches,
        ):
            for encoded in batches:
                request = encoded.batch.request
                draft = self.drafts[request.shard]
                draft.add(encoded)
                progress.update(request.seconds)
                if request.last:
                    del self.drafts[request.shard]
                    self.directory.write_rows(request.shard, draft.rows(), draft.failures())
                if stop.requested:
                    return

    def _requests(self, shards: Sequence[Shard]) -> Iterator[Request]:
        """The batches of all shards in turn, without those of shards that another process has finished meanwhile."""
        for shard in shards:
            if self.directory.has(shard):
                continue
            rows = self.plan.rows(shard)
            self.drafts[shard] = _Draft(rows, self.plan.sampling_rate)
            yield from rows.requests(self.plan)


class _Draft:
    """A shard in the making: rows come in the order of batches and leave in the order of the plan."""

    def __init__(self, rows: ShardRows, sampling_rate: int) -> None:
        self._planned, self._rate = rows.rows, sampling_rate
        self._rows: dict[int, TokenRow] = {}
        self._failures: dict[int, str] = {}

    def add(self, encoded: EncodedBatch) -> None:
        batch = encoded.batch
        self._failures |= batch.failures
        for row, samples, stream, voice in zip(
            batch.rows, batch.lengths, encoded.streams, encoded.voices, strict=True
        ):
            utterance, variant = self._planned[row]
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
        utterance, variant = self._planned[row]
        return utterance.id + variant.suffix


def _beyond(words: Sequence[Word] | None, seconds: float) -> str | None:
    """What is wrong with words that end after their recording; None if none does."""
    for word, _, end in words or ():
        if end is not None and end > seconds + _TOLERANCE:
            return f"the word {word!r} ends at {end:.2f} s, the recording at {seconds:.2f} s"
    return None
