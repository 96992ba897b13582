"""Generating token by token with a key/value cache, several rows at once.

All rows advance together, one token a step: a row that is being fed (its prompt, or the text of its next span) takes
that token, the others draw one. So rows need no padding, whatever their prompts are, and a position is the same place
in the cache for all. Where every row has something to be fed, that is done in one go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from codec.runs import UserError, generator
from slm.cache import growing_cache, select_rows
from slm.grammar import Row, TokenSets, additions
from slm.sampling import SamplingConfig, sample, wide_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_UNIFORMS = 256  # steps of random numbers made at a time
_NOTHING = np.zeros(2)


@dataclass(frozen=True)
class GenerationStatistics:
    """What generation took."""

    forward_passes: int
    positions: int  # tokens of the longest row


@torch.inference_mode()
def generate(
    model: "PreTrainedModel",
    rows: Sequence[Row],
    sets: TokenSets,
    sampling: SamplingConfig,
    seed: int,
) -> GenerationStatistics:
    """Run the rows to their ends; what they drew is in them afterwards.

    What a row draws depends on the seed, its number and its own prompt, not on the other rows (but for rounding
    in matrix products). A row that reaches the model's longest position is cut there.

    Raises UserError when a prompt alone is longer than that.
    """
    longest = model.config.max_position_embeddings
    if max(len(row.feed) for row in rows) >= longest:
        raise UserError(
            f"the prompt has {max(len(row.feed) for row in rows)} tokens, the model reads {longest}: "
            "shorten the text or the recording"
        )
    device = sets.table.device
    cache = growing_cache()
    live = list(range(len(rows)))  # numbers of the rows that are in the batch
    draws = [_Uniforms(seed, number) for number in live]
    window = max(sampling.repetition_window, 1)
    position = passes = 0
    # Candidates of one prompt: it is read once, then its cache is copied.
    if len(rows) > 1 and all(row.feed == rows[0].feed for row in rows) and len(rows[0].feed) > 1:
        prompt = torch.tensor([list(rows[0].feed)[:-1]], device=device)
        model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
        select_rows(cache, torch.zeros(len(rows), dtype=torch.int64, device=device))
        position, passes = prompt.shape[1], 1
        for row in rows:
            row.feed = type(row.feed)([row.feed[-1]])

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
        ids = torch.tensor(chunk, device=device)  # (live, tokens)
        positions = torch.arange(position, position + ids.shape[1], device=device)[None]
        logits = (
            model(
                input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            .logits[:, -1]
            .float()
        )  # (live, vocabulary)
        position += ids.shape[1]
        passes += 1

        members = [rows[number] for number in live]
        logits += additions(members, sets)
        history = torch.tensor([_last(row.drawn, window) for row in members], device=device)
        # A row that is being fed draws nothing, so its random numbers wait for it.
        uniforms = torch.from_numpy(
            np.stack([_NOTHING if rows[number].feed else draws[number].next() for number in live])
        ).to(device, wide_dtype(device))
        pending = sample(logits, history, uniforms, sampling).tolist()
        for row, token in zip(members, pending, strict=True):
            if row.feed:
                continue  # still being fed: what was drawn for it means nothing
            row.accept(token)
            if not row.done and position + len(row.feed) >= longest:
                row.stop("context")
        kept = [place for place, row in enumerate(members) if not row.done]
        if len(kept) < len(live):
            live = [live[place] for place in kept]
            pending = [pending[place] for place in kept]
            if live:
                select_rows(cache, torch.tensor(kept, device=device))
    return GenerationStatistics(passes, position)


class _Uniforms:
    """The random numbers of one row, two for each step."""

    def __init__(self, seed: int, row: int) -> None:
        self.seed, self.row, self.step = seed, row, 0
        self._block = np.zeros((0, 2), dtype=np.float64)

    def next(self) -> np.ndarray:
        block, place = divmod(self.step, _UNIFORMS)
        if place == 0:
            self._block = generator(self.seed, "sampling", self.row, block).random((_UNIFORMS, 2))
        self.step += 1
        return self._block[place]


def _last(tokens: list[int], count: int) -> list[int]:
    """The last `count` tokens, with -1 for those that are missing."""
    last = tokens[-count:]
    return [-1] * (count - len(last)) + last
