"""Generating token by token with a key/value cache, several rows at once.

All rows advance together, one token a step: a row that is being fed (its prompt, or the text of its next span) takes
that token, the others draw one. So rows need no padding, whatever their prompts are, and a position is the same place
in the cache for all. Where every row has something to be fed, that is done in one go.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from codec.foundation import UserError, generator
from slm.generation.decoders import Decoder, Reading, TransformersDecoder
from slm.generation.grammar import Row, TokenSets
from slm.generation.sampling import SamplingConfig, sample, wide_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_UNIFORMS = 256  # steps of random numbers made at a time
_NOTHING = np.zeros(2)


@dataclass(frozen=True)
class GenerationStatistics:
    """What generation took so far."""

    forward_passes: int
    positions: int  # tokens of the longest row


def generate(
    model: "Decoder | PreTrainedModel",
    rows: Sequence[Row],
    sets: TokenSets,
    sampling: SamplingConfig,
    seed: int,
) -> GenerationStatistics:
    """Run the rows to their ends; what they drew is in them afterwards.

    What a row draws depends on the seed, its own number (`Row.draws`) and its prompt, not on the other rows (but for
    rounding in matrix products). A row that reaches the model's longest position is cut there.

    Raises UserError when a prompt alone is longer than that.
    """
    return deque(generation_steps(model, rows, sets, sampling, seed), maxlen=1)[0]


def generation_steps(
    model: "Decoder | PreTrainedModel",
    rows: Sequence[Row],
    sets: TokenSets,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[GenerationStatistics]:
    """As `generate`, but yields after every step: what the rows hold by then can be used at once."""
    decoder = TransformersDecoder(model) if isinstance(model, torch.nn.Module) else model
    steps = _steps(decoder, rows, sets, sampling, seed)
    while True:
        # not around the whole loop: whoever takes the tokens between two steps is not in inference mode
        with torch.inference_mode():
            statistics = next(steps, None)
        if statistics is None:
            return
        yield statistics


def _steps(
    decoder: Decoder, rows: Sequence[Row], sets: TokenSets, sampling: SamplingConfig, seed: int
) -> Iterator[GenerationStatistics]:
    longest = decoder.longest
    if (prompt := max(len(row.feed) for row in rows)) >= longest:
        raise UserError(
            f"the prompt has {prompt} tokens, the model reads {longest}: shorten the text or the recording"
        )
    device = sets.table.device
    reach = sets.reach(rows)  # nothing else can come, so nothing else is computed
    table = sets.table[:, reach.start : reach.stop]
    reading = decoder.start()
    live = list(range(len(rows)))  # numbers of the rows that are in the batch
    draws = [_Uniforms(seed, row.draws or (number,)) for number, row in enumerate(rows)]
    window = max(sampling.repetition_window, 1)
    passes = _read_shared_prompt(reading, rows, reach, device)

    pending: list[int] = []  # tokens drawn in the step before, by live row; they have not been read yet
    while live:
        together = min(len(rows[number].feed) for number in live)
        if together:
            chunk = [[rows[number].feed.popleft() for _ in range(together)] for number in live]
        else:
            chunk = [
                [rows[number].feed.popleft() if rows[number].feed else pending[place]]
                for place, number in enumerate(live)
            ]
        logits = reading.read(torch.tensor(chunk, device=device), reach)  # (live, len(reach))
        passes += 1

        members = [rows[number] for number in live]
        if all(row.feed for row in members):
            pending = [0] * len(members)  # nobody draws: what is pending will not be read
        else:
            logits += table[torch.tensor([sets.number_of(row) for row in members], device=device)]
            if sampling.temperature == 0:
                drawn = logits.argmax(-1)
            else:
                history = torch.tensor([_last(row.drawn, window) for row in members], device=device)
                # A row that is being fed draws nothing, so its random numbers wait for it.
                uniforms = torch.from_numpy(
                    np.stack([_NOTHING if rows[number].feed else draws[number].next() for number in live])
                ).to(device, wide_dtype(device))
                drawn = sample(logits, history - reach.start, uniforms, sampling)
            pending = (drawn + reach.start).tolist()
        for row, token in zip(members, pending, strict=True):
            if row.feed:
                continue  # still being fed: what was drawn for it means nothing
            row.accept(token)
            if not row.done and reading.position + len(row.feed) >= longest:
                row.stop("context")
        kept = [place for place, row in enumerate(members) if not row.done]
        if len(kept) < len(live):
            live = [live[place] for place in kept]
            pending = [pending[place] for place in kept]
            if live:
                reading.select(torch.tensor(kept, device=device))
        yield GenerationStatistics(passes, reading.position)


def _read_shared_prompt(reading: Reading, rows: Sequence[Row], reach: range, device: torch.device) -> int:
    """Candidates of one prompt: it is read once, then its cache is copied. Returns the forward passes it took."""
    first = rows[0].feed
    if len(rows) == 1 or len(first) == 1 or any(row.feed != first for row in rows):
        return 0
    reading.read(torch.tensor([list(first)[:-1]], device=device), reach)
    reading.select(torch.zeros(len(rows), dtype=torch.int64, device=device))
    for row in rows:
        row.feed = type(row.feed)([row.feed[-1]])
    return 1


class _Uniforms:
    """The random numbers of one row, two for each step."""

    def __init__(self, seed: int, row: tuple[int, ...]) -> None:
        self.seed, self.row, self.step = seed, row, 0
        self._block = np.zeros((0, 2), dtype=np.float64)

    def next(self) -> np.ndarray:
        block, place = divmod(self.step, _UNIFORMS)
        if place == 0:
            self._block = generator(self.seed, "sampling", *self.row, block).random((_UNIFORMS, 2))
        self.step += 1
        return self._block[place]


def _last(tokens: list[int], count: int) -> list[int]:
    """The last `count` tokens, with -1 for those that are missing."""
    last = tokens[-count:]
    return [-1] * (count - len(last)) + last
