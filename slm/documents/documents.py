"""All documents of a training run, each a function of (seed, epoch, index)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from codec.foundation import UserError
from slm.documents.config import DocumentConfig
from slm.documents.formats import (
    FORMATS,
    SPEECH,
    Document,
    DocumentWriter,
    Format,
    Row,
    RowSizes,
    texts_needed,
    write_speech,
    write_tts,
)
from slm.documents.long_rows import fitting_rows
from slm.documents.mixture import rows_of_epoch, rows_per_epoch
from slm.documents.rows import Companions, Source, TextRows, TokenRows, measure
from slm.documents.spans import Draws, below, numbers, uniform
from slm.vocabulary import Vocabulary

# What the numbers of a document's stream decide, by counter.
_FORMAT, _VOICE, _PROMPT, _PROMPT_ROW, _PROMPT_TEXT = range(5)
_MEASURED = 20_000  # documents, to know how long those of a source are on average


@dataclass(frozen=True)
class EpochPlan:
    """The documents of an epoch before they are built; all arrays are (documents,).

    A document takes 22 bytes. 100,000 hours of speech are some 60 million documents.
    """

    rows: np.ndarray  # int32, over all sources
    repeats: np.ndarray  # int16, 1 for a row that comes for the second time in the epoch, …
    formats: np.ndarray  # uint8, index into the formats' names
    # uint8, the format before a row that lacks something, or is too long, had to take another
    drawn: np.ndarray
    tags: np.ndarray  # int32, token id of the voice tag, or -1
    prompts: np.ndarray  # int32, row of the prompt utterance, or -1
    prompt_texts: np.ndarray  # bool, whether it comes with its text
    lengths: np.ndarray  # int32, tokens
    draws: Draws


@dataclass(frozen=True)
class DocumentCounts:
    """What an epoch holds."""

    documents: dict[str, int]  # by format
    # by the format that was drawn; differs where rows lack text or words, or are too long
    drawn: dict[str, int]
    became: dict[tuple[str, str], int]  # of these, by the format that was drawn and another that was made
    # of these, by the format that was drawn, such as would not have fitted into a block
    too_long: dict[str, int]
    voice_tags: int
    prompts: int
    tokens: int
    tokens_of_format: dict[str, int]
    documents_of_source: list[int]
    tokens_of_source: list[int]


class Documents:
    """The documents of several token datasets and datasets of text.

    A document is `[voice tag] [prompt] body`. The prompt is a whole document of another utterance of the same speaker:
    `<|text|> t… <|speech|> s… <|eos|>`, or `<|speech|> s… <|eos|>` without its text. Generation begins like a document:
    `[voice tag] [prompt] <|text|> t… <|speech|>`. So a voice is given by its tag, by the codes of a recording with or
    without its text, or by both.

    What a document looks like depends on the seed, the epoch and the row alone. The order of an epoch's documents
    depends on the seed, the epoch and the number of rows.

    A document that is longer than `longest` is cut when it is packed. Text would be torn from its speech there, so no
    such document has both. Long rows whose words have times are cut before, into rows that fit (`fitting_rows`). What
    still does not fit becomes `tts`, whose marks are few, else `speech`, its text left out. A prompt that would make a
    document longer than that is left out too.
    """

    def __init__(
        self,
        datasets: Sequence[TokenRows | TextRows | Source],
        vocabulary: Vocabulary,
        config: DocumentConfig,
        seed: int,
        budget: int | None = None,
        longest: int | None = None,
    ):
        """Reads the sizes of all rows, and of texts and words only if a format needs them.

        Args:
            budget: tokens that the run trains on; `max_epochs` of the sources refers to them.
            longest: tokens of a block.

        Raises:
            UserError: there is nothing to make a document of, a dataset is of another codec, a format is unknown, or
                only some datasets have a weight.
        """
        if unknown := [name for name in config.formats if name not in FORMATS]:
            raise UserError(f"no document format is called {unknown[0]!r}; there are {', '.join(FORMATS)}")
        self.sources = [source if isinstance(source, Source) else Source(source) for source in datasets]
        for source in self.sources:
            if not isinstance(source.dataset, TextRows):
                name = f"the token dataset {source.dataset.name}"
                vocabulary.codec.check_same(source.dataset.info, what=name, as_many=True)
        self.sources = [fitting_rows(source, vocabulary, config, longest) for source in self.sources]
        self.vocabulary = vocabulary
        self.config = config
        self.seed = seed
        self.longest = longest
        self._formats = list(FORMATS.values())
        self._paired = np.array([format.paired for format in self._formats])
        with_voices = config.prompt_probability or (config.voice_tag_probability and vocabulary.voices)
        self.table = measure(self.sources, vocabulary, texts_needed(config), bool(with_voices))
        sizes = self.table.text + self.table.speech
        self._usable = np.flatnonzero(sizes)  # the rows that hold anything
        if not self._usable.size:
            raise UserError(
                "the token datasets hold nothing to make a document of: no codes, and no text that a "
                "format asks for"
            )
        starts = np.searchsorted(self._usable, self.table.source_starts)
        self._sizes = np.diff(starts).tolist()
        self._rows_per_epoch: list[float] = list(self._sizes)
        self._companions = Companions(self.table.voice) if config.prompt_probability else None
        # By number of the voice; the last entry is for -1, no voice.
        tags = [vocabulary.voice_id(name) for name in [*self.table.voice_names, None]]
        self._tags = np.array([-1 if tag is None else tag for tag in tags], dtype=np.int32)
        self._plans: dict[int, EpochPlan] = {}
        weights = [source.weight for source in self.sources]
        most = [source.max_epochs if budget else None for source in self.sources]
        if any(entry is not None for entry in [*weights, *most]):
            tokens = self.tokens_of_sources()
            # of all tokens of the run, as many epochs of the source
            limits = [
                None if epochs is None else epochs * count / (budget or 1)
                for epochs, count in zip(most, tokens, strict=True)
            ]
            self._rows_per_epoch = rows_per_epoch(self._sizes, tokens, weights, limits)
        for number, source in enumerate(self.sources):
            if source.rows_per_epoch is not None:
                self._rows_per_epoch[number] = source.rows_per_epoch

    def tokens_of_sources(self) -> list[float]:
        """Tokens of each source's documents if every row comes once: the mean over some epochs."""
        epochs = range(max(1, min(100, _MEASURED // self._usable.size)))
        plans = (self._make_plan(epoch) for epoch in epochs)
        return np.mean([self._by_source(plan.rows, plan.lengths) for plan in plans], axis=0).tolist()

    def _by_source(self, rows: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """How many of the rows are of each source, or the sum of their values, (sources,)."""
        return np.bincount(self._source_of(rows), values, minlength=len(self.sources))

    def _source_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.table.source_starts, rows, side="right") - 1

    def lengths(self, epoch: int) -> np.ndarray:
        """Tokens of every document of an epoch, (documents,) int64, without building any."""
        return self.plan(epoch).lengths.astype(np.int64)

    def build(self, epoch: int, index: int) -> Document:
        """One document of an epoch."""
        plan = self.plan(epoch)
        key = self._keys(plan.rows[index : index + 1], plan.repeats[index : index + 1])
        out = DocumentWriter()
        if plan.tags[index] >= 0:
            out.control(int(plan.tags[index]))
        if plan.prompts[index] >= 0:
            out.weight_scale = self.config.prompt_loss_weight
            write_prompt = write_tts if plan.prompt_texts[index] else write_speech
            write_prompt(out, self._row(int(plan.prompts[index]), key, plan.draws))
            out.weight_scale = 1.0
        self._formats[plan.formats[index]].write(out, self._row(int(plan.rows[index]), key, plan.draws))
        return self._corrupt(out.finish(), plan.draws.streams("corruption", key))

    def row(self, epoch: int, index: int) -> Row:
        """What one document of an epoch is written from."""
        plan = self.plan(epoch)
        key = self._keys(plan.rows[index : index + 1], plan.repeats[index : index + 1])
        return self._row(int(plan.rows[index]), key, plan.draws)

    @property
    def format_names(self) -> list[str]:
        """Names of the formats by their number in a plan."""
        return [format.name for format in self._formats]

    def counts(self, epoch: int) -> DocumentCounts:
        """How many documents of which kind an epoch holds."""
        plan = self.plan(epoch)
        names = self.format_names

        def by_name(formats: np.ndarray, values: np.ndarray | None = None) -> dict[str, int]:
            counts = np.bincount(formats, values, minlength=len(names)).tolist()
            return {name: int(count) for name, count in zip(names, counts, strict=True) if count}

        other = np.flatnonzero(plan.formats != plan.drawn)
        pairs, counts = np.unique(
            np.stack([plan.drawn[other], plan.formats[other]]), axis=1, return_counts=True
        )
        return DocumentCounts(
            documents=by_name(plan.formats),
            drawn=by_name(plan.drawn),
            became={
                (names[drawn], names[made]): count
                for drawn, made, count in zip(*pairs.tolist(), counts.tolist(), strict=True)
            },
            too_long={
                names[number]: count
                for number, format in enumerate(self._formats)
                if (count := int(self._can_take(format, plan.rows[other[plan.drawn[other] == number]]).sum()))
            },
            voice_tags=int((plan.tags >= 0).sum()),
            prompts=int((plan.prompts >= 0).sum()),
            tokens=int(plan.lengths.sum()),
            tokens_of_format=by_name(plan.formats, plan.lengths),
            documents_of_source=self._by_source(plan.rows).tolist(),
            tokens_of_source=self._by_source(plan.rows, plan.lengths).astype(int).tolist(),
        )

    def can_make(self, name: str) -> bool:
        """Whether any row can become a document of this format."""
        rows = self._usable[self._can_take(FORMATS[name], self._usable)]
        rows = rows[np.array(self._rows_per_epoch)[self._source_of(rows)] > 0]
        if not rows.size or self.longest is None:
            return bool(rows.size)
        formats = np.full(len(rows), self._formats.index(FORMATS[name]))
        lengths = self._body_lengths(
            formats, rows, self._keys(rows, np.zeros_like(rows)), Draws(self.seed, 0)
        )
        return bool((lengths <= self.longest).any()) or not self._paired[formats[0]]

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch, made when first needed."""
        if epoch not in self._plans:
            if len(self._plans) == 2:  # this epoch and the next: whoever reads ahead builds from both
                del self._plans[min(self._plans)]
            self._plans[epoch] = self._make_plan(epoch)
        return self._plans[epoch]

    def _make_plan(self, epoch: int) -> EpochPlan:
        order = rows_of_epoch(self.seed, epoch, self._sizes, self._rows_per_epoch)
        rows = self._usable[order.rows].astype(np.int32)
        keys = self._keys(rows, order.repeats)
        draws = Draws(self.seed, epoch)
        streams = draws.streams("document", keys)

        drawn = self._draw_formats(uniform(numbers(streams, _FORMAT)))
        formats = self._feasible(drawn, rows)
        text_alone = np.array([isinstance(source.dataset, TextRows) for source in self.sources])
        drawn = np.where(text_alone[self._source_of(rows)], formats, drawn)  # it has no choice
        voiced = np.array([format.voiced for format in self._formats])[formats]
        voiced &= uniform(numbers(streams, _VOICE)) < self.config.voice_tag_probability
        tags = np.where(voiced, self._tags[self.table.voice[rows]], np.int32(-1))
        lengths = (tags >= 0) + self._body_lengths(formats, rows, keys, draws)
        for shorter in ("tts", "speech") if self.longest is not None else ():
            torn = np.flatnonzero(self._paired[formats] & (lengths > self.longest))
            formats[torn] = self._formats.index(FORMATS[shorter])
            lengths[torn] = (tags[torn] >= 0) + self._body_lengths(
                formats[torn], rows[torn], keys[torn], draws
            )

        prompted = np.array([format.prompted for format in self._formats])[formats]
        prompted &= uniform(numbers(streams, _PROMPT)) < self.config.prompt_probability
        prompts = self._draw_prompts(rows, prompted, uniform(numbers(streams, _PROMPT_ROW)))
        prompt_texts = uniform(numbers(streams, _PROMPT_TEXT)) < self.config.prompt_text_probability
        prompt_texts &= (self.table.text[prompts] > 0) & (prompts >= 0)
        prompt_lengths = np.where(prompts >= 0, self.table.speech[prompts] + 2, 0)
        prompt_lengths += np.where(prompt_texts, self.table.text[prompts] + 1, 0)
        if self.longest is not None:
            prompts[(prompts >= 0) & (lengths + prompt_lengths > self.longest)] = -1
            prompt_texts &= prompts >= 0
        lengths += np.where(prompts >= 0, prompt_lengths, 0)
        return EpochPlan(
            rows=rows,
            repeats=order.repeats,
            formats=formats,
            drawn=drawn,
            tags=tags,
            prompts=prompts,
            prompt_texts=prompt_texts,
            lengths=lengths.astype(np.int32),
            draws=draws,
        )

    def _body_lengths(
        self, formats: np.ndarray, rows: np.ndarray, keys: np.ndarray, draws: Draws
    ) -> np.ndarray:
        """Tokens of documents without tag and prompt, (documents,) int64."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        for number, format in enumerate(self._formats):
            chosen = np.flatnonzero(formats == number)
            if chosen.size:
                sizes = self._row_sizes(rows[chosen], keys[chosen])
                lengths[chosen] = format.length(sizes, self.config, draws)
        return lengths

    def _keys(self, rows: np.ndarray, repeats: np.ndarray) -> np.ndarray:
        """Names of the documents' random streams, (documents,) uint64.

        A row that comes again in an epoch is another document.
        """
        return rows.astype(np.uint64) + repeats.astype(np.uint64) * np.uint64(len(self.table))

    def _draw_formats(self, fractions: np.ndarray) -> np.ndarray:
        weights = np.cumsum([self.config.formats.get(format.name, 0.0) for format in self._formats])
        return np.searchsorted(weights / weights[-1], fractions, side="right").astype(np.uint8)

    def _feasible(self, drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The formats of rows: the drawn one, or the first of its alternatives that the row can take."""
        formats = drawn.copy()
        for number, format in enumerate(self._formats):
            lacking = np.flatnonzero((drawn == number) & ~self._can_take(format, rows))
            for other in format.otherwise:
                formats[lacking] = self._formats.index(FORMATS[other])
                lacking = lacking[~self._can_take(FORMATS[other], rows[lacking])]
        return formats

    def _can_take(self, format: Format, rows: np.ndarray) -> np.ndarray:
        able = np.ones(len(rows), dtype=bool)
        for needed, sizes in (
            (format.needs_text, self.table.text),
            (format.needs_speech, self.table.speech),
            (format.needs_words, self.table.stretches),
        ):
            if needed:
                able &= sizes[rows] > 0
        if format.needs_placed:
            placed = self.table.placed
            able &= placed is not None and placed.counts(rows) > 0
        return able

    def _draw_prompts(self, rows: np.ndarray, prompted: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        if self._companions is None:
            return np.full(len(rows), -1, dtype=np.int32)
        prompts = self._companions.draw(rows, fractions)
        longest = (
            self.config.prompt_seconds * self.vocabulary.codec.frame_rate * self.vocabulary.num_quantizers
        )
        fits = (self.table.speech[prompts] > 0) & (self.table.speech[prompts] <= longest)
        return np.where(prompted & fits, prompts, -1).astype(np.int32)

    def _row_sizes(self, rows: np.ndarray, keys: np.ndarray) -> RowSizes:
        table = self.table
        text, speech, stretches = (
            column[rows].astype(np.int64) for column in (table.text, table.speech, table.stretches)
        )
        return RowSizes(keys, text, speech, stretches, rows.astype(np.int64), table)

    def _row(self, row: int, key: np.ndarray, draws: Draws) -> Row:
        source = int(self._source_of(np.array(row)))
        index = row - int(self.table.source_starts[source])
        return Row(self.sources[source].dataset, index, key, self.vocabulary, self.config, draws)

    def _corrupt(self, document: Document, stream: np.ndarray) -> Document:
        """Replaces some speech tokens that the model sees by random ones of the same quantizer."""
        if not self.config.corruption:
            return document
        drawn = numbers(stream, np.arange(len(document)))
        hit = np.flatnonzero((uniform(drawn) < self.config.corruption) & (document.modality == SPEECH))
        vocabulary = self.vocabulary
        quantizers = np.searchsorted(vocabulary.speech_offsets, document.targets[hit], side="right") - 1
        sizes = np.array(vocabulary.codec.codebook_sizes)[quantizers]
        input_ids = document.targets.copy()
        # The upper bits decided whether, the lower decide what.
        input_ids[hit] = vocabulary.speech_offsets[quantizers] + below(drawn[hit], sizes)
        return replace(document, input_ids=input_ids)
