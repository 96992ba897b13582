"""Retrieval: find the text of a speech among other texts, and the speech of a text among other speech.

Each of N rows is tried among N rows of about the same length, so that lengths tell nothing; chance is 1 in N. Documents
of speech after text find the text under which a speech is likeliest, and the speech that gains most from a text.
Documents of text after speech work the other way round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codec.metrics import Interval, clustered_share, normalize_transcript
from slm.documents.rows import TokenRows
from slm.generation.planning import cut_text
from slm.generation.speech_lm import SpeechLM
from slm.models.likelihood import token_log_probabilities

Direction = Literal["text for speech", "speech for text"]
Reader = Literal["speech after text", "text after speech"]
READERS: tuple[Reader, ...] = ("speech after text", "text after speech")


@dataclass(frozen=True)
class RetrievalTrial:
    """One row tried among the others of its group."""

    index: int  # of the row in its dataset
    group: int
    reader: Reader  # the documents that were read
    direction: Direction
    score: float  # 1 where the right one was found, 1 / k where it was one of the k best


@dataclass(frozen=True)
class RetrievalAccuracy:
    """Share of the trials in which the right one was found."""

    trials: int
    candidates: int  # among which it was
    accuracy: Interval

    @property
    def chance(self) -> float:
        """Of a model that knows nothing."""
        return 1.0 / self.candidates

    @classmethod
    def of(cls, trials: Sequence[RetrievalTrial], candidates: int) -> "RetrievalAccuracy":
        """Over trials of one kind, with an interval over groups: rows tried against each other hang together."""
        numbers, places = np.unique([trial.group for trial in trials], return_inverse=True)
        scores = np.bincount(places, [trial.score for trial in trials], minlength=len(numbers))
        found = clustered_share(scores, np.bincount(places, minlength=len(numbers)))
        return cls(len(trials), candidates, found)


def retrieval_groups(
    lengths: Sequence[int], texts: Sequence[str], size: int, fits: Callable[[int, int], bool]
) -> list[list[int]]:
    """Places of rows in groups of `size` of about the same length, no text twice. Incomplete groups are dropped.

    fits: whether the speech of the first place can be read with the text of the second.
    """
    open_groups: list[list[int]] = []
    whole: list[list[int]] = []
    said = [normalize_transcript(text) for text in texts]
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        if not fits(place, place):
            continue
        for group in open_groups:
            others = {said[other] for other in group}
            if said[place] not in others and all(
                fits(place, other) and fits(other, place) for other in group
            ):
                group.append(place)
                break
        else:
            group = [place]
            open_groups.append(group)
        if len(group) == size:
            whole.append(group)
            open_groups.remove(group)
    return whole


def found(scores: np.ndarray) -> np.ndarray:
    """Whether the largest number of each row is on the diagonal, (rows,): 1, 0, or 1 / k of k equal ones."""
    best = scores == scores.max(axis=1, keepdims=True)
    return np.diagonal(best) / best.sum(axis=1)


def gains(told: np.ndarray) -> np.ndarray:
    """How much more likely each given thing makes each told thing than unrelated things do.

    told: (things, given) log p(thing | given), at least three of each, matching ones on the diagonal. Subtracts from
    each number the mean of its row without itself and without the diagonal. So it does not count how likely a thing is
    in general, nor how well it fits its own match.
    """
    count = len(told)
    own = np.diagonal(told)[:, None]
    others = told.sum(axis=1, keepdims=True) - told - np.where(np.eye(count, dtype=bool), 0.0, own)
    return told - others / (count - 2 + np.eye(count))


def retrieve(
    language_model: SpeechLM,
    dataset: TokenRows,
    indices: Sequence[int],
    candidates: int,
    on_progress: Callable[[int], object] | None = None,
) -> list[RetrievalTrial]:
    """Try rows of a dataset in both directions, with every kind of document that the model was trained on.

    Rows in incomplete groups of `candidates` (at least three) are skipped. `on_progress` is called with the number of
    documents just read.
    """
    vocabulary = language_model.vocabulary
    texts = [dataset.text(index) or "" for index in indices]
    speech = [vocabulary.codes_to_ids(dataset.codes(index)) for index in indices]
    tags = [vocabulary.voice_id(dataset.speaker(index)) for index in indices]
    counts = vocabulary.count_text(texts) if texts else np.zeros(0, dtype=np.int32)
    longest = language_model.model.config.max_position_embeddings
    # a span of `aligned` has two tokens of its own, and at least one of text
    groups = retrieval_groups(
        [len(ids) for ids in speech],
        texts,
        candidates,
        lambda place, other: len(speech[place]) + 3 * int(counts[other]) + 4 <= longest,
    )
    trials = []
    for number, group in enumerate(groups):
        for reader in readers_of(language_model):
            pairs = [(place, other) for place in group for other in group]  # what is told, what is given
            if reader == "speech after text":
                documents = [
                    _speech_after_text(language_model, texts[text], speech[place], tags[place])
                    for place, text in pairs
                ]
            else:
                documents = [
                    _text_after_speech(language_model, texts[text], speech[place]) for text, place in pairs
                ]
            told = _read(language_model, documents, on_progress).reshape(len(group), len(group))
            of_given: Direction = "text for speech" if reader == "speech after text" else "speech for text"
            of_told: Direction = "speech for text" if reader == "speech after text" else "text for speech"
            for direction, scores in ((of_given, found(told)), (of_told, found(gains(told).T))):
                trials += [
                    RetrievalTrial(indices[place], number, reader, direction, float(score))
                    for place, score in zip(group, scores, strict=True)
                ]
    return trials


def readers_of(language_model: SpeechLM) -> list[Reader]:
    """The kinds of documents that this model was trained on."""
    capabilities = language_model.capabilities
    able = {
        "speech after text": capabilities.speak_format is not None,
        "text after speech": "asr" in capabilities.formats,
    }
    return [reader for reader in READERS if able[reader]]


@dataclass(frozen=True)
class _Scored:
    ids: np.ndarray  # (tokens,) int64
    scored: np.ndarray  # (tokens,) bool, those whose likelihood counts


def _read(
    language_model: SpeechLM,
    documents: "Sequence[_Scored]",
    on_progress: Callable[[int], object] | None,
) -> np.ndarray:
    """Log-likelihoods (documents,) of what is scored."""
    ids = [document.ids for document in documents]
    told = token_log_probabilities(language_model.model, ids, language_model.vocabulary.pad_id, on_progress)
    return np.array([nats[document.scored[1:]].sum() for nats, document in zip(told, documents, strict=True)])


def _speech_after_text(language_model: SpeechLM, text: str, speech: np.ndarray, tag: int | None) -> _Scored:
    """The document that the model speaks from.

    The word times of a text that is not the speech's own are unknown. So in `aligned` documents every text, the right
    one too, is spread evenly over the speech by its letters.
    """
    vocabulary, size = language_model.vocabulary, language_model.vocabulary.num_quantizers
    if language_model.capabilities.speak_format == "aligned":
        spans = cut_text(text, vocabulary, language_model.capabilities.words_per_span)
        shares = np.cumsum([len(span.text) for span in spans]) / max(1, len(text))
        cuts = np.round(shares * (len(speech) // size)).astype(np.int64)[:-1] * size
        pieces = list(zip([span.ids for span in spans], np.split(speech, cuts), strict=True))
    else:
        pieces = [(vocabulary.encode_text(text), speech)]
    parts = [np.array([] if tag is None else [tag])]
    for words, spoken in pieces:
        parts += [np.array([vocabulary.text_id]), words, np.array([vocabulary.speech_id]), spoken]
    ids = np.concatenate(parts).astype(np.int64)
    return _Scored(ids, (ids >= vocabulary.speech_start) & (ids < vocabulary.speech_end))


def _text_after_speech(language_model: SpeechLM, text: str, speech: np.ndarray) -> _Scored:
    vocabulary = language_model.vocabulary
    words = vocabulary.encode_text(text)
    ids = np.concatenate([[vocabulary.speech_id], speech, [vocabulary.text_id], words]).astype(np.int64)
    return _Scored(ids, np.arange(len(ids)) >= len(ids) - len(words))
