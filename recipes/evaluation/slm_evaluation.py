"""A speech language model reading sentences: how it is understood, how it sounds, where it ends, how fast it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from codec.foundation import Progress, UserError
from codec.metrics import Column, normalize_transcript, sounding_seconds
from data import AudioError, Utterance, read_audio, write_audio
from recipes.evaluation.continuations import ContinuationResult
from recipes.evaluation.scoring import Scorer, ScoringTask
from recipes.evaluation.sentences import References, Sentence, VoiceLikeness
from recipes.reporting.provenance import file_name
from slm.evaluation.cross_modal import CrossModalResult
from slm.evaluation.likelihood import SpokenText, bits_for, in_own_format
from slm.evaluation.metrics import SpeechSummary, SpokenSentence, code_repetition, summarize_speech
from slm.evaluation.pairs import PairResult
from slm.generation.config import SamplingConfig
from slm.generation.planning import Prompt
from slm.generation.speech_lm import SpeechLM

REFERENCE = "reference recordings"
CEILING = "references through the codec"


@dataclass(frozen=True)
class Reference:
    """A recording of one of the sentences, and what the codec makes of it."""

    sentence: Sentence
    utterance: Utterance
    seconds: float
    heard: Prompt  # its codes, and its voice


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
    bits_of: int = 0  # references that these are of: those of which the model's own documents can be made
    unreferenced: list[str] = field(default_factory=list)  # ids of sentences that no reference says
    failures: dict[str, str] = field(default_factory=dict)  # sentence or reference -> why it was left out
    pairs: list[PairResult] = field(default_factory=list)  # of the likelihood tests
    continuations: ContinuationResult | None = None
    cross_modal: list[CrossModalResult] = field(default_factory=list)  # by token dataset
    not_trained_on: list[str] = field(default_factory=list)  # kinds of documents that were read nevertheless
    unfinished: list[str] = field(default_factory=list)  # parts that are still to be measured
    # bootstraps of thousands of sentences take seconds, and each line is asked for several times
    _summaries: dict[str, SpeechSummary] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def left_out(self) -> dict[str, int]:
        """How many of what could not be measured, by what they are; those are named elsewhere."""
        continuations = {} if self.continuations is None else self.continuations.failures
        counts = {
            "sentences and references": len(self.failures),
            "recordings to go on from": len(continuations),
            **{f"pairs of {result.name}": len(result.failures) for result in self.pairs},
            **{f"rows of {result.name}": result.left_out for result in self.cross_modal},
        }
        return {what: count for what, count in counts.items() if count}

    @property
    def systems(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(row.system for row in self.rows))

    def summary(self, system: str) -> SpeechSummary:
        """One line of the table; rows do not change any more once it was asked for."""
        if system not in self._summaries:
            own = [row.spoken for row in self.rows if row.system == system]
            self._summaries[system] = summarize_speech(own)
        return self._summaries[system]

    @property
    def compared(self) -> dict[str, SpeechSummary]:
        """The model's lines over the sentences alone that have a reference; empty unless these are some of several."""
        without, found = set(self.unreferenced), {}
        for system in self.systems:
            own = [row for row in self.rows if row.system == system and row.audio is not None]
            kept = [row.spoken for row in own if row.sentence.id not in without]
            if 0 < len(kept) < len(own):
                found[system] = summarize_speech(kept)
        return found


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
    gain: float = 1.0,
) -> SLMEvaluation:
    """Speak every sentence in every voice into `output`/audio, and score it beside the references.

    A sentence's reference is its recording by the speaker of the voice's name, else by whoever says it. All is
    spoken first and scored afterwards, so that the recogniser's work is not in the speed. The scorer's metrics must
    need no reference: speech of another length is compared with. References are taken times `gain`.
    A sentence that the model cannot say and a reference that cannot be read are left out and named.
    Raises UserError where no sentence is left.
    """
    failures: dict[str, str] = {}
    found = _references(language_model, sentences, voices, references, gain, failures)
    with suppress(UserError):  # what is loaded at the first use is not in the speed
        language_model.speak(sentences[0].text, voice=voices[0], sampling=sampling, seed=seed)
    rows = []
    with Progress(len(sentences) * len(voices), unit="sentences", label="speaking") as progress:
        for voice in voices:
            for number, sentence in enumerate(sentences):
                reference = found.get((sentence.id, voice))
                try:
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
                except UserError as error:
                    failures[f"sentence {sentence.id}" + (f" in voice {voice}" if voice else "")] = str(error)
                progress.update(1)
    if not rows:
        raise UserError(f"no sentence could be spoken: {next(iter(failures.values()))}")
    unique = list({reference.utterance.id: reference for reference in found.values()}.values())
    recordings = _spoken_texts(unique)
    own = [recordings[number] for number in in_own_format(language_model, recordings)]
    bits = bits_for(language_model, own)
    heard: list[SpokenRow] = []
    with Progress(len(rows) + 2 * len(unique), unit="recordings", label="listening") as progress:
        for row, scores in scorer.run(_tasks(language_model, unique, rows, output, likeness, gain)):
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
    skipped = {**scorer.skipped, **_beside(len(unique), len(own), len(unreferenced), references is not None)}
    return SLMEvaluation(heard, columns, skipped, bits, len(own), unreferenced, failures)


Part = Callable[[SLMEvaluation], SLMEvaluation]  # what was measured so far -> with its own beside it


def measure_parts(evaluation: SLMEvaluation, parts: Mapping[str, Part]) -> Iterator[SLMEvaluation]:
    """What was measured, after every part; a part of which nothing can be measured joins what was skipped.

    Raises UserError at the end where nothing could be measured at all.
    """
    failed: dict[str, str] = {}
    for number, (name, part) in enumerate(parts.items()):
        try:
            evaluation = part(evaluation)
        except UserError as error:
            failed[name] = str(error)
        if len(failed) <= number:
            skipped = {**evaluation.skipped, **failed}
            evaluation = replace(evaluation, skipped=skipped, unfinished=list(parts)[number + 1 :])
            yield evaluation
    if len(failed) == len(parts):
        raise UserError("; ".join(failed.values()))


def check_voices(language_model: SpeechLM, voices: Sequence[str | None]) -> None:
    """Raise UserError for a voice that the model does not have."""
    known = language_model.vocabulary.voices
    if unknown := [voice for voice in voices if voice is not None and voice not in known]:
        raise UserError(f"this model has no voice {unknown[0]!r}; it has: {', '.join(known) or 'none'}")


def model_system(voice: str | None) -> str:
    """How the model's speech in a voice is called in tables."""
    return f"model, voice {voice}" if voice else "model"


def _references(
    language_model: SpeechLM,
    sentences: Sequence[Sentence],
    voices: Sequence[str | None],
    references: References | None,
    gain: float,
    failures: dict[str, str],
) -> dict[tuple[str, str | None], Reference]:
    """By sentence and voice, each recording read and coded once; sentences without one are left out.

    Recordings that cannot be read join the failures.
    """
    by_utterance: dict[str, Reference] = {}
    found: dict[tuple[str, str | None], Reference] = {}
    rate = language_model.vocabulary.codec.sampling_rate
    for voice in voices if references is not None else ():
        for sentence in sentences:
            utterance = references.find(sentence.text, voice) if references is not None else None
            if utterance is None or f"reference {utterance.id}" in failures:
                continue
            if utterance.id not in by_utterance:
                try:
                    waveform = read_audio(utterance.path, rate) * gain
                    if not len(waveform):
                        raise AudioError(f"{utterance.path}: holds no audio")
                except AudioError as error:
                    failures[f"reference {utterance.id}"] = str(error)
                    continue
                heard = language_model.read(waveform)
                by_utterance[utterance.id] = Reference(sentence, utterance, len(waveform) / rate, heard)
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


def _spoken_texts(references: Sequence[Reference]) -> list[SpokenText]:
    return [
        SpokenText(r.heard.codes, r.utterance.text or r.sentence.text, r.utterance.speaker, r.utterance.words)
        for r in references
    ]


def _beside(references: int, with_bits: int, unreferenced: int, given: bool) -> dict[str, str]:
    """What there is nothing to compare with, and why."""
    missing = {}
    if not references:
        missing["recordings, the codec's ceiling, lengths and bits beside the sentences"] = (
            "none of the recordings of --references says one of the sentences"
            if given
            else "no recordings of the sentences: --references"
        )
    elif unreferenced:
        missing[f"recordings and the codec's ceiling beside {unreferenced} sentences"] = (
            "none of the recordings of --references says them"
        )
    if left_out := references - with_bits:
        missing[f"bits of {left_out} of {references} references"] = (
            "they cannot be put as the model speaks: words without times (--alignment), or longer than it reads"
        )
    return missing


def _tasks(
    language_model: SpeechLM,
    references: Sequence[Reference],
    rows: Sequence[SpokenRow],
    output: Path,
    likeness: VoiceLikeness | None,
    gain: float,
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
                audio = read_audio(reference.utterance.path, rate) * gain
            else:
                heard = reference.heard
                codes, audio = language_model.decode(vocabulary.codes_to_ids(heard.codes), heard.voice)
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
