"""Training on datasets that do not fit on the disk: a few shards at a time, in a fixed order.

A window takes the place of an epoch: the next shards of each streamed dataset, and the next rows of those on the disk.
It is planned and packed like an epoch. So step n depends on the seed and n alone, and a run goes on from (window,
block) without reading what came before.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import floor

from codec.foundation import generator
from data.token_dataset import TokenStream
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.documents.formats import texts_needed
from slm.documents.long_rows import fitting_rows
from slm.documents.rows import Source, read_sizes
from slm.packing.blocks import PackedBlocks
from slm.vocabulary import Vocabulary


@dataclass(frozen=True)
class StreamedSource:
    """The training split of a streamed dataset in a mixture; `weight` and `voice` as in `slm.documents.rows.Source`."""

    stream: TokenStream
    weight: float | None = None
    voice: str | None = None


class ShardWindows:
    """The documents of one window after another.

    Each pass over a streamed dataset has its own order of shards. Without weights all sources, those on the disk too,
    finish a pass at the same time as the first streamed one.
    """

    def __init__(
        self,
        sources: Sequence[Source | StreamedSource],
        vocabulary: Vocabulary,
        config: DocumentConfig,
        seed: int,
        shards: int,
        longest: int | None = None,
    ) -> None:
        """`shards`: of the first streamed source in a window; one source at least is streamed.

        longest: tokens of a block.
        """
        self.vocabulary, self.config, self.seed, self.longest = vocabulary, config, seed, longest
        # What is on the disk is measured once, not for every window.
        self.sources = [
            source
            if isinstance(source, StreamedSource)
            else fitting_rows(source, vocabulary, config, longest)
            for source in sources
        ]
        first = next(source for source in sources if isinstance(source, StreamedSource))
        shards = min(shards, first.stream.shards("train"))
        tokens = 0.0 if first.weight is None else self._tokens(first) * shards / first.stream.shards("train")
        self._steps = [  # shards of a streamed source, or rows of another, in a window
            _size(source)
            * (
                shards / first.stream.shards("train")
                if source.weight is None or first.weight is None
                else tokens * source.weight / (first.weight * max(self._tokens(source), 1))
            )
            for source in self.sources
        ]

    def documents(self, window: int) -> Documents:
        """The documents of a window, as its epoch number `window`; fetches its shards.

        Raises UserError when a shard cannot be read.
        """
        opened = []
        for number, (source, step) in enumerate(zip(self.sources, self._steps, strict=True)):
            if not isinstance(source, StreamedSource):
                opened.append(replace(source, weight=None, rows_per_epoch=step))
                continue
            numbers = self._shards(number, window)
            if not numbers:
                continue
            rows = source.stream.open("train", numbers)
            source.stream.forget(
                "train", {shard for w in (window - 1, window) for shard in self._shards(number, w)}
            )
            sizes = read_sizes(rows, self.vocabulary, texts_needed(self.config), numbers)
            opened.append(Source(rows, voice=source.voice, sizes=sizes))
        return Documents(opened, self.vocabulary, self.config, self.seed, longest=self.longest)

    def _tokens(self, source: Source | StreamedSource) -> float:
        """Tokens of a source's documents if every row comes once; of a streamed one by those of its first shard."""
        if not isinstance(source, StreamedSource):
            part, whole = replace(source, weight=None), 1.0
        else:
            rows = source.stream.open("train", [0])
            sizes = read_sizes(rows, self.vocabulary, texts_needed(self.config), [0])
            part = Source(rows, voice=source.voice, sizes=sizes)
            codec = self.vocabulary.codec
            seconds = float(rows.lengths.sum()) / (codec.frame_rate * rows.info.num_quantizers)
            whole = source.stream.metadata["splits"]["train"]["seconds"] / max(seconds, 1e-9)
        documents = Documents([part], self.vocabulary, self.config, self.seed, longest=self.longest)
        return documents.tokens_of_sources()[0] * whole

    def _shards(self, number: int, window: int) -> list[int]:
        source, step = self.sources[number], self._steps[number]
        assert isinstance(source, StreamedSource)
        count = source.stream.shards("train")
        places = range(max(0, floor(window * step)), max(0, floor((window + 1) * step)))
        orders = {
            turn: generator(self.seed, "order of shards", number, turn).permutation(count)
            for turn in {place // count for place in places}
        }
        return [int(orders[place // count][place % count]) for place in places]


class BlocksAhead:
    """Packed blocks of windows; while one is trained on, the next is fetched and planned."""

    def __init__(self, windows: ShardWindows, block_length: int) -> None:
        self._windows, self._length = windows, block_length
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="next shards")
        self._coming: dict[int, Future[PackedBlocks]] = {}

    def __call__(self, window: int) -> PackedBlocks:
        """The blocks of a window."""
        coming = self._coming.pop(window, None) or self._worker.submit(self._make, window)
        self._coming = {window + 1: self._worker.submit(self._make, window + 1)}
        return coming.result()

    def _make(self, window: int) -> PackedBlocks:
        return PackedBlocks(self._windows.documents(window), self._length, window)


def _size(source: Source | StreamedSource) -> int:
    """Shards of a streamed source, rows of another."""
    return source.stream.shards("train") if isinstance(source, StreamedSource) else len(source.dataset)
