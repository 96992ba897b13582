"""Generating token by token with a key/value cache, several rows at once.

All rows advance together, one token a step. A row that is being fed (its prompt, or the text of its next span) takes
the next token of that; the others draw one. So rows need no padding, and a position is the same place in the cache for
all. While every row is being fed, several tokens are read at once.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from codec.foundation import UserError, generator
from slm.generation.config import SamplingConfig
from slm.generation.decoders import Decoder, Reading, TransformersDecoder
from slm.generation.grammar import Row, TokenSets

_UNIFORMS = 256  # steps of random numbers made at a time
_LIKELIEST = 128  # tokens that are looked at first for the nucleus
_NOTHING = np.zeros(2)


def generate(
    model: Decoder | PreTrainedModel,
    rows: Sequence[Row],
    sets: TokenSets,
    sampling: SamplingConfig,
    seed: int,
) -> None:
    """Run the rows to their ends. They hold the tokens that they drew.

    What a row draws depends on the seed (`Row.seed` where it is set), its own number (`Row.draws`) and its prompt, not
    on the other rows (but for rounding in matrix products). A row that reaches the model's longest position is cut
    there.

    Raises UserError when a prompt alone is longer than that.
    """
    for _ in generation_steps(model, rows, sets, sampling, seed):
        pass


def generation_steps(
    model: Decoder | PreTrainedModel,
    rows: Sequence[Row],
    sets: TokenSets,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[None]:
    """As `generate`, but yields after every step, so that tokens can be used at once."""
    decoder = TransformersDecoder(model) if isinstance(model, torch.nn.Module) else model
    steps = _steps(decoder, rows, sets, sampling, seed)
    while True:
        # not around the whole loop: whoever takes the tokens between two steps is not in inference mode
        with torch.inference_mode():
            if next(steps, True):
                return
        yield


def _steps(
    decoder: Decoder, rows: Sequence[Row], sets: TokenSets, sampling: SamplingConfig, seed: int
) -> Iterator[None]:
    longest = decoder.longest
    if (prompt := max(len(row.feed) for row in rows)) >= longest:
        raise UserError(
            f"the prompt has {prompt} tokens, the model reads {longest}: shorten the text or the recording"
        )
    device = sets.table.device
    token_range = sets.token_range(rows)  # nothing else can come, so nothing else is computed
    table = sets.table[:, token_range.start : token_range.stop]
    reading = decoder.start()
    live = list(range(len(rows)))  # numbers of the rows that are in the batch
    draws = [
        _Uniforms(seed if row.seed is None else row.seed, row.draws or (number,))
        for number, row in enumerate(rows)
    ]
    window = max(sampling.repetition_window, 1)
    _read_shared_prompt(reading, rows, token_range, device)

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
        logits = reading.read(torch.tensor(chunk, device=device), token_range)  # (live, len(token_range))

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
                drawn = sample(logits, history - token_range.start, uniforms, sampling)
            pending = (drawn + token_range.start).tolist()
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
        yield


def _read_shared_prompt(
    reading: Reading, rows: Sequence[Row], token_range: range, device: torch.device
) -> None:
    """Candidates of one prompt: it is read once, then its cache is copied."""
    first = rows[0].feed
    if len(rows) == 1 or len(first) == 1 or any(row.feed != first for row in rows):
        return
    reading.read(torch.tensor([list(first)[:-1]], device=device), token_range)
    reading.select(torch.zeros(len(rows), dtype=torch.int64, device=device))
    for row in rows:
        row.feed = type(row.feed)([row.feed[-1]])


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


def warp(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Logits after temperature, top-k and nucleus; what is cut is -inf. The shape (batch, vocabulary) stays.

    At least one token stays. Order and meaning are those of transformers' `generate`.
    """
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        least = torch.topk(logits, config.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if config.top_p < 1:
        logits = logits.masked_fill(~_nucleus(logits, config.top_p), -torch.inf)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Which tokens are the likeliest that together have a probability of `top_p`: (batch, vocabulary) bool.

    Those are nearly always among a few, so that the vocabulary need not be sorted. From the least likely upwards, what
    together stays within 1 - top_p goes.
    """
    probabilities = logits.softmax(-1)
    for count in (_LIKELIEST, logits.shape[-1]):
        likeliest, order = probabilities.topk(min(count, logits.shape[-1]))
        rest = probabilities.scatter(1, order, 0).sum(-1, keepdim=True)
        if bool((rest <= 1 - top_p).all()):
            break
    stays = rest + likeliest.flip(-1).cumsum(-1).flip(-1) > 1 - top_p
    stays[:, 0] = True
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, stays)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Tokens by inverting the cumulative distribution: (batch, vocabulary), (batch,) in [0, 1) -> (batch,) int64."""
    wide = wide_dtype(logits.device)
    cumulative = logits.to(wide).softmax(-1).cumsum(-1)
    # Scaled by the total, which rounding leaves beside 1; `right` never lands on a token of probability zero.
    target = uniform.to(wide)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits.shape[-1] - 1)


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest floats that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def sample(logits: Tensor, history: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """The next token of each row.

    logits: (batch, vocabulary), -inf where a token may not come. history: (batch, any) int64, the tokens drawn
    before, latest last; negative entries are nothing. uniforms: (batch, 2) in [0, 1). Returns (batch,) int64.
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    tokens = draw(warp(logits, config), uniforms[:, 0])
    if config.repetition_window and config.repetition_threshold <= 1:
        recent = history[:, -config.repetition_window :]
        share = (recent == tokens[:, None]).sum(1) / config.repetition_window
        repeats = share >= config.repetition_threshold
        if bool(repeats.any()):
            tokens = torch.where(repeats, draw(logits, uniforms[:, 1]), tokens)
    return tokens
