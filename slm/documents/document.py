"""One training sequence, and how it is put together."""

from dataclasses import dataclass

import numpy as np

CONTROL, TEXT, SPEECH = 0, 1, 2


@dataclass(frozen=True)
class Document:
    """A sequence of text and speech tokens; all arrays are (tokens,)."""

    input_ids: np.ndarray  # int32, what the model sees
    targets: (
        np.ndarray
    )  # int32, what it has to predict at that place: the same but for corrupted speech tokens
    loss_weights: np.ndarray  # float32, weight of predicting this token; 0 for the first
    modality: np.ndarray  # uint8, CONTROL, TEXT or SPEECH

    def __len__(self) -> int:
        return len(self.input_ids)


class DocumentWriter:
    """Puts a document together from pieces, each of one modality and one loss weight.

    `weight_scale` multiplies the weights of what is written from then on.
    """

    def __init__(self) -> None:
        self.weight_scale = 1.0
        self._ids: list[np.ndarray] = []
        self._modalities: list[int] = []
        self._weights: list[float] = []

    def control(self, token_id: int, weight: float = 0.0) -> None:
        self._write(np.array([token_id], dtype=np.int32), CONTROL, weight)

    def text(self, ids: np.ndarray, weight: float) -> None:
        self._write(ids, TEXT, weight)

    def speech(self, ids: np.ndarray, weight: float) -> None:
        self._write(ids, SPEECH, weight)

    def _write(self, ids: np.ndarray, modality: int, weight: float) -> None:
        self._ids.append(ids)
        self._modalities.append(modality)
        self._weights.append(weight * self.weight_scale)

    def finish(self) -> Document:
        lengths = [len(ids) for ids in self._ids]
        targets = np.concatenate(self._ids)
        weights = np.repeat(np.array(self._weights, dtype=np.float32), lengths)
        weights[0] = 0.0  # nothing stands before it to predict it from
        modality = np.repeat(np.array(self._modalities, dtype=np.uint8), lengths)
        return Document(targets, targets, weights, modality)
