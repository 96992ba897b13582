"""What may come next while a model speaks or writes: modality masks, bounds, and detection of endless repeats.

A row is one sequence that is generated. Before each token it names the set of tokens that are allowed, afterwards it is
told which one was drawn. Bounds use the same sets: before a span may end, its end is not allowed; when it must end,
nothing else is. So generation always ends, and never produces a wrong modality.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from slm.vocabulary import Vocabulary

Cut = Literal["length", "repeats", "context"]


@dataclass(frozen=True)
class Span:
    """A stretch of speech to generate, and the text fed before it (as tokens; empty where the prompt has it)."""

    min_frames: int
    max_frames: int
    text_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))


class TokenSets:
    """The sets of tokens that can be allowed, as rows of one table that is added to the logits: 0 or -inf."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        size = len(vocabulary)
        names: list[tuple[str, list[range]]] = []
        sizes = vocabulary.codec.codebook_sizes[: vocabulary.num_quantizers]
        codes = [
            range(start, start + count)
            for start, count in zip(vocabulary.speech_offsets.tolist(), sizes, strict=True)
        ]
        eos, text = (range(token, token + 1) for token in (vocabulary.eos_id, vocabulary.text_id))
        for quantizer, span in enumerate(codes):
            names.append((f"q{quantizer}", [span]))
        words = range(vocabulary.num_text)
        names += [
            ("frame or eos", [codes[0], eos]),
            ("frame or text", [codes[0], text]),
            ("eos", [eos]),
            ("text", [text]),
            ("words or eos", [words, eos]),
        ]
        self.numbers = {name: number for number, (name, _) in enumerate(names)}
        table = torch.full((len(names), size), -torch.inf)
        for number, (_, spans) in enumerate(names):
            for span in spans:
                table[number, span.start : span.stop] = 0.0
        # The text tokenizer's own special tokens, such as <unk>, stand for no bytes: nobody writes them.
        silent = torch.from_numpy(vocabulary.text_bytes == 0)
        silent[vocabulary.num_text :] = False
        table[self.numbers["words or eos"], silent] = -torch.inf
        self.table = table.to(device)  # (sets, vocabulary)
        self._token_ranges = {
            True: range(
                min(vocabulary.eos_id, vocabulary.text_id, vocabulary.speech_start), vocabulary.speech_end
            ),
            False: range(0, vocabulary.eos_id + 1),
        }

    def token_range(self, rows: "Sequence[Row]") -> range:
        """A range that holds all tokens that these rows can draw."""
        ranges = [self._token_ranges[isinstance(row, SpeakingRow)] for row in rows]
        return range(
            min(token_range.start for token_range in ranges), max(token_range.stop for token_range in ranges)
        )

    def number_of(self, row: "Row") -> int:
        """The set that is allowed to this row now, as a row of the table."""
        return self.numbers["eos" if row.done or row.feed else row.open_set()]


class Row:
    """A sequence being generated: what it is fed, what it may draw, what it has drawn."""

    def __init__(self, prompt: np.ndarray) -> None:
        # Which random numbers it draws by, beside the seed; where unset, those of its place in the batch.
        self.draws: tuple[int, ...] = ()
        self.seed: int | None = None  # instead of that of the call
        self.feed: deque[int] = deque(prompt.tolist())  # tokens that come whether the model wants them or not
        self.drawn: list[int] = []  # tokens of the modality that is generated
        self.done = False
        self.cut: Cut | None = None  # why the end was not the model's own; None if it was

    def open_set(self) -> str:
        """The name of the set that the next token is drawn from."""
        raise NotImplementedError

    def accept(self, token: int) -> None:
        """Take the token that was drawn."""
        raise NotImplementedError

    def stop(self, cut: Cut) -> None:
        """End here, whatever is open."""
        self.done, self.cut = True, self.cut or cut


class SpeakingRow(Row):
    """Generates speech, span after span; between two spans it feeds the next one's text."""

    def __init__(
        self, prompt: np.ndarray, spans: Sequence[Span], vocabulary: Vocabulary, stuck_frames: int
    ) -> None:
        """`prompt` goes up to and including the `<|speech|>` of the first span.

        stuck_frames: so many frames of nothing new end a span; 0: no watch.
        """
        super().__init__(prompt)
        self.vocabulary, self.spans, self.stuck_frames = vocabulary, list(spans), stuck_frames
        self.span_frames: list[int] = [0]  # frames generated in each span so far
        self.cut_spans: dict[int, Cut] = {}
        self.kept_frames = 0  # so many at the beginning are not taken back any more, whatever they repeat
        self._stuck = False

    @property
    def _is_last(self) -> bool:
        return len(self.span_frames) == len(self.spans)

    def open_set(self) -> str:
        quantizer = len(self.drawn) % self.vocabulary.num_quantizers
        if quantizer:
            return f"q{quantizer}"
        span, frames = self.spans[len(self.span_frames) - 1], self.span_frames[-1]
        end = "eos" if self._is_last else "text"
        if frames < span.min_frames:
            return "q0"
        if frames >= span.max_frames or self._stuck:
            return end
        return f"frame or {end}"

    def accept(self, token: int) -> None:
        vocabulary = self.vocabulary
        if token in (vocabulary.eos_id, vocabulary.text_id):
            self._end_span()
            return
        self.drawn.append(token)
        if len(self.drawn) % vocabulary.num_quantizers == 0:
            self.span_frames[-1] += 1
            self._watch()

    def _end_span(self) -> None:
        number = len(self.span_frames) - 1
        if self._stuck:
            self.cut_spans[number] = "repeats"
        elif self.span_frames[-1] >= self.spans[number].max_frames:
            self.cut_spans[number] = "length"
        self._stuck = False
        if self._is_last:
            self.done, self.cut = True, self.cut_spans.get(number)
            return
        text = self.spans[number + 1].text_ids
        self.feed.extend([self.vocabulary.text_id, *text.tolist(), self.vocabulary.speech_id])
        self.span_frames.append(0)

    def _watch(self) -> None:
        """End a span that only repeats itself, and take back all but the first quarter of the repeats."""
        size = self.vocabulary.num_quantizers
        length = self.stuck_frames
        if not length or self.span_frames[-1] < max(length, self.spans[len(self.span_frames) - 1].min_frames):
            return
        recent = np.array(self.drawn[-length * size :]).reshape(length, size)[:, 0]
        if is_stuck(recent):
            frames = len(self.drawn) // size
            left = max(frames - length + max(length // 4, 1), min(self.kept_frames, frames))
            del self.drawn[left * size :]
            self.span_frames[-1] -= frames - left
            self._stuck = True


class WritingRow(Row):
    """Generates text until the model says `<|eos|>`."""

    def __init__(self, prompt: np.ndarray, max_tokens: int, vocabulary: Vocabulary) -> None:
        super().__init__(prompt)
        self.max_tokens, self.vocabulary = max_tokens, vocabulary

    def open_set(self) -> str:
        return "eos" if len(self.drawn) >= self.max_tokens else "words or eos"

    def accept(self, token: int) -> None:
        if token == self.vocabulary.eos_id:
            self.done = True
            self.cut = "length" if len(self.drawn) >= self.max_tokens else None
        else:
            self.drawn.append(token)


_FEW_CODES = 2
_LONGEST_PERIOD = 16  # frames


def is_stuck(frames: np.ndarray) -> bool:
    """Whether frames, (frames,) of the first quantizer's codes, are silence or a loop.

    They are if they hold at most two different codes, or repeat at least three times with a period of up to 16 frames.
    """
    if len(np.unique(frames)) <= _FEW_CODES:
        return True
    periods = range(1, min(_LONGEST_PERIOD, len(frames) // 3) + 1)
    return any(np.array_equal(frames[period:], frames[:-period]) for period in periods)
