"""A speech language model reading sentences: how it is understood, how it sounds, where it ends, how fast it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from codec.metrics import Column, normalize_transcript, sounding_seconds
from codec.runs import Progress
from data import Utterance, read_audio, write_audio
from recipes.evaluation.file_names import file_name
from recipes.evaluation.pairs import PairResult
from recipes.evaluation.scoring import Scorer, ScoringTask
from recipes.evaluation.sentences import References, Sentence
from recipes.evaluation.slm_continuations import ContinuationResult
from recipes.evaluation.slm_cross_modal import CrossModalResult
from recipes.evaluation.slm_voices import VoiceLikeness
from slm.evaluation.likelihood import SpokenText, bits_for
from slm.evaluation.metrics import SpeechSummary, SpokenSentence, summarize_speech
from slm.evaluation.repetition import code_repetition
from slm.generation.sampling import SamplingConfig
from slm.generation.speech_lm import SpeechLM

REFERENCE = "reference recordings"
CEILING = "references through the codec"


@dataclass(frozen=True)
class Reference:
    """A recording of one of the sentences, and what the codec makes of it."""

    sentence: Sentence
    utterance: Utterance
    seconds: float
    codes: np.ndarray  # (frames * num_quantizers,) uint16


@dataclass(frozen=True)
class SpokenRow:
    """One sentence by one system: the model in a voice, a reference, or a reference through the codec."""

    sentence: Sentence
    system: str
    voice: str | None  # the reference's speaker in its rows
    spoken: SpokenSentence
    transcript: str | None = None  # what the recogniser heard
    cuts: list[str] = field(default_factory=list)  # what a guard cut, in words
    audio: str | None = None  # below the output directory


@dataclass
class SLMEvaluation:
    """Everything measured."""

    rows: list[SpokenRow] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)  # of what is measured of the audio
    skipped: dict[str, str] = field(default_factory=dict)  # metric -> why, and the cure
    bits: dict[str, float] = field(default_factory=dict)  # for the references; empty without references
    unreferenced: list[str] = field(default_factory=list)  # ids of sentences that no reference says
    pairs: list[PairResult] = field(default_factory=list)  # of the likelihood tests
    continuations: ContinuationResult | None = None
    cross_modal: list[CrossModalResult] = field(default_factory=list)  # by token dataset

    @property
    def systems(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(row.system for row in self.rows))

    def summary(self, system: str) -> SpeechSummary:
        """One line of the table."""
        return summarize_speech([row.spoken for row in self.rows if row.system == system])


def evaluate(
    language_model: SpeechLM,
    sentences: Sequence[Sentence],
    voices: Sequence[str | None],
    references: References | None,
    scorer: Scorer,
    output: Path,
    sampling: SamplingConfig,
    candidates: int = 1,
    seed: int = 0,
    likeness: VoiceLikeness | None = None,
) -> SLMEvaluation:
    """Speak every sentence in every voice into `output`/audio, and score it beside the references.

    A sentence's reference is its recording by the speaker of the voice's name, else by whoever says it. All is
    spoken first and scored afterwards, so that the recogniser's work is not in the speed. The scorer's metrics must
    need no reference: speech of another length is compared with.
    Raises UserError for a voice that the model does not have, AudioError for a reference that cannot be read.
    """
    found = _references(language_model, sentences, voices, references)
    # what is loaded at the first use is not in the speed
    language_model.speak(sentences[0].text, voice=voices[0], sampling=sampling, seed=seed)
    rows = []
    with Progress(len(sentences) * len(voices), unit="sentences", label="speaking") as progress:
        for voice in voices:
            for number, sentence in enumerate(sentences):
                reference = found.get((sentence.id, voice))
                rows.append(
                    _speak(
                        language_model,
                        sentence,
                        voice,
                        reference,
                        output,
                        sampling,
                        candidates,
                        seed + number,
                    )
                )
                progress.update(1)
    unique = list({reference.utterance.id: reference for reference in found.values()}.values())
    bits = _bits(language_model, unique)
    heard: list[SpokenRow] = []
    with Progress(len(rows) + 2 * len(unique), unit="recordings", label="listening") as progress:
        for row, scores in scorer.run(_tasks(language_model, unique, rows, output, likeness)):
            spoken = replace(
                row.spoken,
                words=scores.words,
                characters=scores.characters,
                values={**scores.values, **row.spoken.values},
            )
            heard.append(replace(row, spoken=spoken, transcript=scores.transcript))
            progress.update(1)
    said = {sentence for sentence, _ in found}
    unreferenced = [s.id for s in sentences if s.id not in said] if references is not None else []
    columns = [*scorer.columns, *([likeness.column] if likeness is not None else [])]
    return SLMEvaluation(heard, columns, scorer.skipped, bits, unreferenced)


def model_system(voice: str | None) -> str:
    """How the model's speech in a voice is called in tables."""
    return f"model, voice {voice}" if voice else "model"


def _references(
    language_model: SpeechLM,
    sentences: Sequence[Sentence],
    voices: Sequence[str | None],
    references: References | None,
) -> dict[tuple[str, str | None], Reference]:
    """By sentence and voice, each recording read and coded once; sentences without one are left out."""
    by_utterance: dict[str, Reference] = {}
    found: dict[tuple[str, str | None], Reference] = {}
    rate = language_model.vocabulary.codec.sampling_rate
    for voice in voices if references is not None else ():
        for sentence in sentences:
            utterance = references.find(sentence.text, voice) if references is not None else None
            if utterance is None:
                continue
            if utterance.id not in by_utterance:
                waveform = read_audio(utterance.path, rate)
                codes = language_model.encode(waveform)
                by_utterance[utterance.id] = Reference(sentence, utterance, len(waveform) / rate, codes)
            found[sentence.id, voice] = by_utterance[utterance.id]
    return found


def _speak(
    language_model: SpeechLM,
    sentence: Sentence,
    voice: str | None,
    reference: Reference | None,
    output: Path,
    sampling: SamplingConfig,
    candidates: int,
    seed: int,
) -> SpokenRow:
    result = language_model.speak(
        sentence.text, voice=voice, candidates=candidates, sampling=sampling, seed=seed
    )
    path = Path("audio") / file_name(voice or "no voice") / f"{file_name(sentence.id)}.wav"
    (output / path).parent.mkdir(parents=True, exist_ok=True)
    write_audio(output / path, result.audio, result.sampling_rate)
    spoken = SpokenSentence(
        seconds=result.seconds,
        # where a guard cut a span, the model did not end it, though it may have ended the sentence
        ended=result.ended and not result.cuts,
        computing_seconds=result.generation_seconds + result.decoding_seconds,
        reference_seconds=reference.seconds if reference is not None else None,
        repetition=code_repetition(result.codes.numpy()),
    )
    return SpokenRow(sentence, model_system(voice), voice, spoken, cuts=result.cuts, audio=path.as_posix())


def _bits(language_model: SpeechLM, references: Sequence[Reference]) -> dict[str, float]:
    if not references:
        return {}
    recordings = [
        SpokenText(r.codes, r.utterance.text or r.sentence.text, r.utterance.speaker, r.utterance.words)
        for r in references
    ]
    return bits_for(language_model, recordings)


def _tasks(
    language_model: SpeechLM,
    references: Sequence[Reference],
    rows: Sequence[SpokenRow],
    output: Path,
    likeness: VoiceLikeness | None,
) -> Iterator[tuple[SpokenRow, ScoringTask]]:
    """What is to be heard and measured: references, references through the codec, the model's own audio files."""
    vocabulary, rate = language_model.vocabulary, language_model.vocabulary.codec.sampling_rate

    def task(row: SpokenRow, audio: torch.Tensor) -> tuple[SpokenRow, ScoringTask]:
        text = row.sentence.text
        spoken = replace(
            row.spoken,
            text_characters=len(normalize_transcript(text)),
            sounding_seconds=sounding_seconds(audio, rate),
            values=(
                {} if likeness is None else {likeness.column.key: likeness(audio, rate, row.voice, text)}
            ),
        )
        return replace(row, spoken=spoken), ScoringTask(_samples(audio), rate, text=text)

    for system in (REFERENCE, CEILING):
        for reference in references:
            repetition = None
            if system == REFERENCE:
                audio = read_audio(reference.utterance.path, rate)
            else:
                codes, audio = language_model.decode(vocabulary.codes_to_ids(reference.codes))
                repetition = code_repetition(codes.numpy())
            spoken = SpokenSentence(
                len(audio) / rate, ended=True, computing_seconds=0.0, repetition=repetition
            )
            yield task(SpokenRow(reference.sentence, system, reference.utterance.speaker, spoken), audio)
    for row in rows:
        audio = read_audio(output / str(row.audio), rate) if row.spoken.seconds else torch.zeros(0)
        yield task(row, audio)


def _samples(audio: torch.Tensor) -> np.ndarray:
    return audio.numpy().astype(np.float32)
