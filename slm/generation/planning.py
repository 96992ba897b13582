"""From a text to what a model reads before it speaks: the start, the document, its spans, passage by passage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codec.foundation import UserError
from slm.generation.bounds import SpeechBounds, cut_text
from slm.generation.grammar import Span, SpeakingRow
from slm.generation.passages import cut_passages
from slm.generation.spoken import Prompt
from slm.models.checkpoint import SpeakingHabits
from slm.vocabulary import Vocabulary

# what a model with no pace of its own is taken to need for a character: English
_USUAL_SECONDS_PER_CHARACTER = 0.065


@dataclass(frozen=True)
class Passage:
    """A stretch of text that a model says in one go."""

    text: str
    ids: np.ndarray  # (tokens,) what is read first, up to the <|speech|> of the first span
    spans: list[Span]
    texts: list[str]  # of the spans; they join to the text

    def row(self, vocabulary: Vocabulary, stuck_frames: int) -> SpeakingRow:
        """A fresh row to generate."""
        return SpeakingRow(self.ids, self.spans, vocabulary, stuck_frames)

    def most_tokens(self, num_quantizers: int) -> int:
        """Tokens if every span is as long as it may be."""
        # between two spans the model reads <|text|>, the text, <|speech|>
        fed = sum(2 + len(span.text_ids) for span in self.spans[1:])
        return len(self.ids) + fed + num_quantizers * sum(span.max_frames for span in self.spans) + 1


class Planner:
    """Cuts texts into passages that the model can say to their ends, however slowly it speaks.

    Args:
        longest: tokens that the model reads.
        words_per_span: of `aligned` documents; as in training unless set.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        habits: SpeakingHabits,
        bounds: SpeechBounds,
        longest: int,
        words_per_span: int | None = None,
    ) -> None:
        self.vocabulary, self.habits, self.bounds, self.longest = vocabulary, habits, bounds, longest
        self.words_per_span = words_per_span or habits.words_per_span
        self.frame_rate = vocabulary.codec.frame_rate

    def passages(self, text: str, start: Sequence[int], keeps_voice: bool) -> list[Passage]:
        """A text as passages, each behind the same start.

        keeps_voice: whether the start says whose voice it is; if not, room is left to begin each passage with the
        one before. Raises UserError when the start leaves no room for a word.
        """
        room = self.longest if keeps_voice else self.longest // 2
        usual = (self.habits.seconds_per_character or [0.0, _USUAL_SECONDS_PER_CHARACTER, 0.0])[1]
        most_seconds = self.bounds.passage_seconds or float("inf")

        def fits(piece: str) -> bool:
            if len(piece) * usual > most_seconds:
                return False
            return self.document(piece, start).most_tokens(self.vocabulary.num_quantizers) < room

        found = [self.document(piece, start) for piece in cut_passages(text, fits)]
        if max(passage.most_tokens(self.vocabulary.num_quantizers) for passage in found) >= self.longest:
            raise UserError(
                f"the prompt takes {len(start)} tokens of the {self.longest} that the model reads, which leaves no "
                "room for speech: give a shorter recording"
            )
        return found

    def document(self, text: str, start: Sequence[int], before: Prompt | None = None) -> Passage:
        """One passage; `before`, with its text, stands in the same document, and the passage goes on from it.

        Raises UserError for a model that was not trained to speak.
        """
        vocabulary, frame_rate = self.vocabulary, self.frame_rate
        if self.habits.speak_format is None:
            raise UserError(
                "this model was not trained to speak texts: it has seen neither tts nor aligned documents; "
                "it can only go on from a recording, without a text"
            )
        if self.habits.speak_format == "aligned":
            pieces = cut_text(text, vocabulary, self.words_per_span)
            is_part = before is not None or len(pieces) > 1
            spans = [
                self.bounds.span(len(piece.text), self.habits, frame_rate, piece.ids, is_part=is_part)
                for piece in pieces
            ]
            opening: list[int] = []
            if before is not None:  # one long span; the new words follow as spans of their own
                opening = [
                    vocabulary.text_id,
                    *vocabulary.encode_text(before.text or "").tolist(),
                    vocabulary.speech_id,
                    *vocabulary.codes_to_ids(before.codes).tolist(),
                ]
            ids = [*start, *opening, vocabulary.text_id, *pieces[0].ids.tolist(), vocabulary.speech_id]
            return Passage(text, np.array(ids), spans, [piece.text for piece in pieces])
        said = "" if before is None else before.text or ""
        given = [] if before is None else vocabulary.codes_to_ids(before.codes).tolist()
        words = vocabulary.encode_text(said + text).tolist()
        ids = [*start, vocabulary.text_id, *words, vocabulary.speech_id, *given]
        return Passage(text, np.array(ids), [self.bounds.span(len(text), self.habits, frame_rate)], [text])

    def after(self, passage: Passage, row: SpeakingRow, start: Sequence[int], then: Passage) -> Passage:
        """The passage `then` as it goes on from one that was spoken: how a voice without a name is kept."""
        codes = self.vocabulary.ids_to_codes(np.asarray(row.drawn))
        return self.document(then.text, start, Prompt(codes, passage.text))
