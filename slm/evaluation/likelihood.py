"""How many bits a language model needs for recordings: their text a byte, their speech a token and a second."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from codec import CodecInfo
from slm.documents.config import DocumentConfig
from slm.documents.documents import Documents
from slm.generation.speech_lm import SpeechLM
from slm.packing.blocks import PackedBlocks, stack
from slm.training.loss import LossSums, PackedLanguageModel

_BLOCK_LENGTH = 2_048  # tokens read at once, where the model reads so many


@dataclass(frozen=True)
class SpokenText:
    """A recording as the model knows it."""

    codes: np.ndarray  # (frames * num_quantizers,) uint16, a stream
    text: str
    speaker: str | None = None  # a voice tag precedes where the model has one of this name
    # word, start, end in seconds (None: not known); `aligned` needs them
    words: Sequence[tuple[str, float | None, float | None]] | None = None


@torch.inference_mode()
def bits_for(language_model: SpeechLM, recordings: Sequence[SpokenText]) -> dict[str, float]:
    """Bits for recordings as the model's own text-to-speech documents, named as in `LossSums.report`.

    There is no corruption, and a voice tag wherever the model has one. Recordings that do not fit such a document
    (`in_own_format`) are skipped; the result is empty where none is left. Raises UserError for another codec.
    """
    recordings = [recordings[number] for number in in_own_format(language_model, recordings)]
    if not recordings:
        return {}
    vocabulary = language_model.vocabulary
    documents = _documents(language_model, recordings)
    # a document that is longer than a block would be cut, and lose sight of its text
    longest = max(_BLOCK_LENGTH, int(documents.plan(0).lengths.max()))
    length = min(longest, language_model.model.config.max_position_embeddings)
    model = PackedLanguageModel(language_model.model, torch.as_tensor(vocabulary.text_bytes.astype("int64")))
    model.to(language_model.model.device)
    total = torch.zeros(LossSums.SIZE, dtype=torch.float64)
    blocks = PackedBlocks(documents, length, epoch=0)
    for index in range(len(blocks)):
        batch = stack([blocks[index]], language_model.model.device)
        total += LossSums.vector(model(**batch), batch["loss_weights"].sum()).cpu().double()
    report = LossSums.of(total).report(vocabulary.codec.frame_rate, vocabulary.num_quantizers)
    del report["loss"]  # weighted by modality: compares with no other model's
    return report


def in_own_format(language_model: SpeechLM, recordings: Sequence[SpokenText]) -> list[int]:
    """Numbers of the recordings that fit the model's text-to-speech documents.

    They have all that the format needs (`aligned` needs word times), and are not longer than the model reads.
    """
    given = [number for number, recording in enumerate(recordings) if len(recording.codes)]
    if not given:
        return []
    documents = _documents(language_model, [recordings[number] for number in given])
    plan = documents.plan(0)
    own = documents.format_names.index(language_model.capabilities.speak_format or "speech")
    fits = plan.lengths <= language_model.model.config.max_position_embeddings
    # a recording that lacks what the format takes has become a document of another
    return sorted(given[row] for row in plan.rows[(plan.formats == own) & fits])


def _documents(language_model: SpeechLM, recordings: Sequence[SpokenText]) -> Documents:
    config = DocumentConfig(
        formats={language_model.capabilities.speak_format or "speech": 1.0},
        text_loss_weight=1.0,
        voice_tag_probability=1.0,
        min_words=language_model.capabilities.words_per_span,
        max_words=language_model.capabilities.words_per_span,
    ).without_noise()
    vocabulary = language_model.vocabulary
    return Documents([_Recordings(recordings, vocabulary.codec)], vocabulary, config, seed=0)


class _Recordings:
    """`slm.documents.rows.TokenRows` over a list."""

    name = "the recordings"

    def __init__(self, recordings: Sequence[SpokenText], info: CodecInfo):
        self.recordings, self.info = recordings, info
        self.lengths = np.array([len(recording.codes) for recording in recordings], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.recordings)

    def codes(self, index: int, /) -> np.ndarray:
        return self.recordings[index].codes

    def text(self, index: int, /) -> str | None:
        return self.recordings[index].text

    def speaker(self, index: int, /) -> str | None:
        return self.recordings[index].speaker

    def language(self, index: int, /) -> str | None:
        return None

    def words(self, index: int, /) -> Sequence[tuple[str, float | None, float | None]] | None:
        return self.recordings[index].words
