"""Models that hear letters: any CTC model of `transformers`, or torchaudio's multilingual aligner (MMS)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, Protocol
from urllib.error import URLError

import torch
from torch import Tensor

from codec.foundation import UserError, first_line
from data.alignment.aligner import Alignment, AlignmentError
from data.alignment.ctc import Spelling, align_words
from data.alignment.spelling import spell
from data.corpora import Utterance, Word

MMS = "mms"
WINDOW_SECONDS = 30.0  # what a model hears at once
_CONTEXT_SECONDS = 2.0  # on either side, and thrown away
_MAX_FRAMES = 6000  # aligned at once: two minutes at the usual 50 a second


class LetterModel(Protocol):
    """A network over waveforms that says which letter is heard when."""

    @property
    def sampling_rate(self) -> int: ...

    @property
    def letters(self) -> Mapping[str, int]: ...  # single characters

    @property
    def blank(self) -> int: ...

    @property
    def separator(self) -> int | None: ...  # between words

    def log_probs(self, waveform: Tensor) -> Tensor:
        """(frames, tokens) of (samples,)."""
        ...


@dataclass
class CTCAligner:
    """Forced alignment by a model of letters.

    A word whose tokens have a lower mean probability than `min_probability` is not there, or not heard: it is not
    placed. Nor is one that cannot be spelt in the model's letters (digits, other scripts).
    """

    model_name: str
    device: str = "cpu"
    min_probability: float = 0.02
    in_processes: bool = field(default=False, init=False)  # they would not fit on a GPU, and need not
    rejects_low_scores: bool = field(default=False, init=False)  # words are judged one by one

    @property
    def name(self) -> str:
        return f"{self.model_name}, min_probability {self.min_probability:g}"

    @property
    def sampling_rate(self) -> int:
        return self._model.sampling_rate

    @cached_property
    def _model(self) -> LetterModel:
        return (
            MMSModel(self.device) if self.model_name == MMS else TransformersCTC(self.model_name, self.device)
        )

    @cached_property
    def _hop(self) -> int:
        """Samples a frame: what two seconds more add, for the first frames see more than a hop each."""
        rate = self.sampling_rate
        frames = [len(self._model.log_probs(torch.zeros(count * rate))) for count in (2, 4)]
        return round(2 * rate / (frames[1] - frames[0]))

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        """Word times by the likeliest path; the score is the words' mean log-probability."""
        written = (utterance.text or "").split()
        words = [spell(word, self._model.letters) for word in written]
        if not any(words):
            raise AlignmentError(
                f"no word of the transcript can be spelt in the letters of {self.model_name}"
            )
        heard = self._listen(blocks)
        spelling = Spelling(words, self._model.blank, self._model.separator)
        spans = align_words(heard.log_probs, spelling, max_frames=_MAX_FRAMES)
        second = self._hop / self.sampling_rate  # of a frame
        lowest = torch.tensor(self.min_probability).log().item()
        times = [
            Word(word, span.start * second, min(span.end * second, heard.seconds))
            if span is not None and span.score >= lowest
            else Word(word, None, None)
            for word, span in zip(written, spans, strict=True)
        ]
        if not any(word.placed for word in times):
            raise AlignmentError("none of the words is heard: the audio does not sound like its text")
        scores = [span.score for span in spans if span is not None]
        return Alignment(tuple(times), sum(scores) / len(scores))

    def _listen(self, blocks: Iterator[Tensor]) -> "_Heard":
        """The emission of a recording, window by window."""
        rate, hop = self.sampling_rate, self._hop
        window = max(1, round(WINDOW_SECONDS * rate / hop)) * hop
        context = round(_CONTEXT_SECONDS * rate / hop) * hop
        samples = 0
        parts: list[Tensor] = []
        for part in _windows(_of_size(blocks, window), context):
            samples += part.inside
            frames = self._model.log_probs(part.waveform)[part.before // hop :]
            parts.append(frames if part.last else frames[: part.inside // hop])
        return _Heard(torch.cat(parts), samples / rate)


@dataclass(frozen=True)
class _Heard:
    log_probs: Tensor  # (frames, tokens) float32
    seconds: float


class TransformersCTC:
    """A CTC model of characters with its feature extractor and tokenizer (Wav2Vec2, HuBERT, WavLM, w2v-BERT ...)."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        """`name` is a directory or a hub id. Raises UserError when it cannot be loaded, or knows no characters."""
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        try:
            self._features: Any = AutoFeatureExtractor.from_pretrained(name)
            tokenizer: Any = AutoTokenizer.from_pretrained(name)
            model: Any = AutoModelForCTC.from_pretrained(name)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"cannot load the CTC model {name}: {reason} (give 'pocketsphinx', 'mms', or the directory or hub id "
                "of a Hugging Face CTC model with its tokenizer)"
            ) from None
        self._model = model.to(device).eval()
        self._device = device
        self.sampling_rate = int(self._features.sampling_rate)
        pad = model.config.pad_token_id  # what CTC models of transformers take for the blank
        self.blank = 0 if pad is None else int(pad)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        self.separator = vocabulary.get(delimiter) if delimiter is not None else None
        kept_out = {*tokenizer.all_special_tokens, delimiter, " "}
        self.letters = {
            token: index
            for token, index in vocabulary.items()
            if len(token) == 1 and token not in kept_out and index not in (self.blank, self.separator)
        }
        if len(self.letters) < len(vocabulary) / 2:
            raise UserError(
                f"{name}: its vocabulary has {len(self.letters)} single characters among {len(vocabulary)} tokens: "
                "alignment needs a CTC model of characters"
            )

    @torch.inference_mode()
    def log_probs(self, waveform: Tensor) -> Tensor:
        """(frames, tokens) float32 on the CPU."""
        features = self._features(
            _long_enough(waveform, self.sampling_rate).numpy(),
            sampling_rate=self.sampling_rate,
            return_tensors="pt",
        )
        logits = self._model(**features.to(self._device)).logits[0]
        return logits.float().log_softmax(dim=-1).cpu()


class MMSModel:
    """torchaudio's MMS_FA bundle: one model for some 1,100 languages, in Latin letters (Pratap et al., 2023).

    Its weights (1.2 GB, CC-BY-NC 4.0) are fetched once. Text in other scripts has to be romanised first.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Raises UserError when the weights are neither there nor to be had."""
        from torchaudio.pipelines import MMS_FA

        try:
            model = MMS_FA.get_model(with_star=False, dl_kwargs={"weights_only": True})
        except (URLError, OSError, RuntimeError) as error:
            reason = first_line(error)
            folder = f"{torch.hub.get_dir()}/checkpoints"
            raise UserError(
                f"the weights of torchaudio's MMS aligner cannot be had ({reason}): go online once, put the bundle's "
                f"model.pt into {folder}, or choose another --aligner"
            ) from None
        self._model = model.to(device)
        self._device = device
        self.sampling_rate = int(MMS_FA.sample_rate)
        labels = MMS_FA.get_dict(star=None)
        self.blank = labels.pop("-")
        self.separator: int | None = None
        self.letters = labels

    @torch.inference_mode()
    def log_probs(self, waveform: Tensor) -> Tensor:
        """(frames, tokens) float32 on the CPU."""
        emission, _ = self._model(_long_enough(waveform, self.sampling_rate)[None].to(self._device))
        return emission[0].float().cpu()


def _long_enough(waveform: Tensor, sampling_rate: int) -> Tensor:
    """A tenth of a second at least: the first convolutions see that much."""
    return torch.nn.functional.pad(waveform, (0, max(0, sampling_rate // 10 - len(waveform))))


@dataclass(frozen=True)
class _Window:
    waveform: Tensor  # (before + inside + after,)
    before: int
    inside: int
    last: bool


def _windows(blocks: Iterator[Tensor], context: int) -> Iterator[_Window]:
    """Each block with what lies beside it."""
    before = torch.zeros(0)
    here = next(blocks)
    for after in chain(blocks, [None]):
        beside = after[:context] if after is not None else torch.zeros(0)
        yield _Window(torch.cat([before, here, beside]), len(before), len(here), after is None)
        if after is not None:
            before, here = here[len(here) - context :], after


def _of_size(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """The same samples in blocks of one size; the last may be shorter, but is there."""
    pending = torch.zeros(0)
    for block in blocks:
        pending = torch.cat([pending, block])
        while len(pending) > size:
            yield pending[:size]
            pending = pending[size:]
    yield pending
