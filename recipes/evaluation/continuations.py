"""Going on from held-out recordings: what a speech language model says by itself, beside what was said in fact."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.foundation import Progress, UserError
from codec.metrics import Column, Interval, SpeakerEmbedder, clustered_share, normalize_transcript
from data import AudioError, Utterance, audio_info, read_audio, write_audio
from recipes.evaluation.config import SHORTEST_SECONDS, ContinuationConfig
from recipes.evaluation.scoring import ERROR_RATES, Scorer, ScoringTask
from recipes.reporting.provenance import file_name
from slm.evaluation.metrics import CodeRepetition, auto_bleu, code_repetition, mean_of, self_bleu, vert
from slm.evaluation.text_lm import TextLikelihood, TextLM, perplexity
from slm.generation.config import SamplingConfig, SpeechBounds
from slm.generation.generate import generate
from slm.generation.grammar import Span, SpeakingRow
from slm.generation.planning import Prompt
from slm.generation.speech_lm import SpeechLM

RECORDING = "recordings go on"
CEILING = "recordings through the codec"
MODEL = "model"

PROMPT_SIMILARITY = Column("prompt_similarity", "speaker similarity to the prompt", "higher")
_BOUNDS = SpeechBounds()


@dataclass(frozen=True)
class Continuation:
    """What follows a prompt: in the recording, in the recording through the codec, or in a sample of the model's."""

    id: str  # of the recording
    system: str
    sample: int
    seconds: float
    ended: bool | None  # whether the model itself came to an end; None of recordings
    cut: str | None  # why not
    repetition: CodeRepetition | None  # of its codes
    audio: str | None = None  # prompt and continuation, below the output directory
    values: dict[str, float] = field(default_factory=dict)  # of the audio, by key of a column
    transcript: str | None = None  # what the recogniser heard
    likelihood: TextLikelihood | None = None  # of the transcript, by a text language model
    auto_bleu: float = math.nan
    self_bleu: float = math.nan  # among one sample each of all prompts
    samples_self_bleu: float = math.nan  # among the samples of the same prompt

    @property
    def says_something(self) -> bool | None:
        """Whether the recogniser heard a word; None where nobody listened."""
        return None if self.transcript is None else bool(normalize_transcript(self.transcript))


@dataclass(frozen=True)
class ContinuationSummary:
    """All continuations of a system, with 95 % intervals over prompts; NaN where nothing was measured."""

    continuations: int
    prompts: int
    seconds: float  # mean
    heard: Interval  # share in which the recogniser heard a word: of the others no text says anything
    ended: Interval  # share that the model ended by itself
    perplexity: Interval  # of the transcripts, a token of the text language model
    auto_bleu: Interval
    self_bleu: Interval
    vert: float
    samples_self_bleu: Interval
    repeated: Interval  # share of n-grams of frames that were there before
    longest_run: float  # frames in a row that are all the same, in the worst
    values: dict[str, Interval]

    @classmethod
    def of(cls, rows: Sequence[Continuation]) -> "ContinuationSummary":
        """Of rows of one system; the samples of a prompt hang together, so all intervals are over prompts."""
        prompts = list(_by_id(rows).values())

        def mean(name: str) -> Interval:
            means = (_mean([getattr(row, name) for row in group]) for group in prompts)
            return mean_of(means, at_most=1.0)

        repetitions = [[row.repetition for row in group if row.repetition is not None] for group in prompts]
        keys = dict.fromkeys(key for row in rows for key in row.values)
        auto, among = mean("auto_bleu"), mean("self_bleu")
        return cls(
            continuations=len(rows),
            prompts=len(prompts),
            seconds=_mean([row.seconds for row in rows]),
            heard=_share([[row.says_something for row in group] for group in prompts]),
            ended=_share([[row.ended for row in group] for group in prompts]),
            perplexity=perplexity(
                [[row.likelihood for row in group if row.likelihood is not None] for group in prompts]
            ),
            auto_bleu=auto,
            self_bleu=among,
            vert=vert(auto.value, among.value),
            samples_self_bleu=mean("samples_self_bleu"),
            repeated=mean_of((_mean([r.repeated for r in group]) for group in repetitions), at_most=1.0),
            longest_run=float(max((r.longest_run for group in repetitions for r in group), default=math.nan)),
            values={
                key: mean_of(_mean([row.values.get(key, math.nan) for row in group]) for group in prompts)
                for key in keys
            },
        )


@dataclass(frozen=True)
class ContinuationResult:
    """Everything measured of continuations."""

    rows: list[Continuation]
    columns: list[Column]
    skipped: dict[str, str]  # metric -> why, and the cure
    failures: dict[str, str]  # id of a recording -> why nothing follows it
    _summaries: dict[str, ContinuationSummary] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def systems(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(row.system for row in self.rows))

    def summary(self, system: str) -> ContinuationSummary:
        """One line of the table, worked out once."""
        if system not in self._summaries:
            own = [row for row in self.rows if row.system == system]
            self._summaries[system] = ContinuationSummary.of(own)
        return self._summaries[system]


@dataclass(frozen=True)
class FittingPrompts:
    """Recordings that are long enough, and why the others are not."""

    utterances: list[Utterance]
    failures: dict[str, str]  # by id


def fitting_prompts(utterances: Sequence[Utterance], config: ContinuationConfig) -> FittingPrompts:
    """The recordings that go on for a second after the prompt, by their headers.

    Raises UserError where there are none.
    """
    fitting: list[Utterance] = []
    failures: dict[str, str] = {}
    longest = 0.0
    for utterance in utterances:
        try:
            info = audio_info(utterance.path)
        except AudioError as error:
            failures[utterance.id] = str(error)
            continue
        longest = max(longest, info.seconds)
        if info.seconds < config.prompt_seconds + SHORTEST_SECONDS:
            failures[utterance.id] = _too_short(utterance.id, info.seconds, config)
        else:
            fitting.append(utterance)
    if not fitting:
        reason = next(iter(failures.values()), "the corpus holds none")
        cure = f"; the longest has {longest:.1f} s: shorten --continuation.prompt_seconds" if longest else ""
        raise UserError(f"there is no recording to go on from: {reason}{cure}")
    return FittingPrompts(fitting, failures)


def evaluate_continuations(
    language_model: SpeechLM,
    utterances: Sequence[Utterance],
    config: ContinuationConfig,
    scorer: Scorer,
    output: Path,
    sampling: SamplingConfig,
    seed: int = 0,
    text_lm: TextLM | None = None,
    embedder: SpeakerEmbedder | None = None,
    gain: float = 1.0,
) -> ContinuationResult:
    """Go on from the first seconds of recordings into `output`/continuations, and score it beside their own rest.

    Recordings are taken times `gain`.

    A recording that cannot be read, has less than a second after the prompt, or is longer than the model reads is a
    failure, named. The scorer's metrics must need no reference.
    Raises UserError when no recording is left.
    """
    failures: dict[str, str] = {}
    rows: list[Continuation] = []
    sampling = config.sampling(sampling)
    rate = language_model.vocabulary.codec.sampling_rate

    def tasks() -> Iterator[tuple[Continuation, ScoringTask]]:
        with Progress(len(utterances), unit="prompts", label="going on") as progress:
            for number, utterance in enumerate(utterances):
                try:
                    prompt = _Prompt.of(language_model, utterance, number, config, gain)
                    made = _continue(language_model, prompt, config.samples, sampling, seed)
                except (AudioError, UserError) as error:
                    failures[utterance.id] = str(error)
                    progress.update(1)
                    continue
                speaker = None if embedder is None else embedder.embed(prompt.heard, rate)
                for row, audio in [*_own(language_model, prompt), *made]:
                    said = audio[len(prompt.heard) :]
                    if row.system == MODEL:
                        row = replace(row, audio=_write(output, row, audio, rate))
                    if embedder is not None:
                        voice = None if speaker is None else embedder.embed(said, rate)
                        alike = math.nan if speaker is None or voice is None else float(speaker @ voice)
                        row = replace(row, values={PROMPT_SIMILARITY.key: alike})
                    yield row, ScoringTask(said.numpy().astype(np.float32), rate, transcribe=True)
                progress.update(1)

    for row, scores in scorer.run(tasks()):
        rows.append(replace(row, values={**scores.values, **row.values}, transcript=scores.transcript))
    if not rows:
        reason = next(iter(failures.values()), "the corpus holds none")
        raise UserError(f"there is no recording to go on from: {reason}")
    skipped = {}
    if scorer.asr is None:
        reason = scorer.skipped.get(ERROR_RATES, "no recogniser: --asr none")
        skipped["perplexity, auto-BLEU and self-BLEU of continuations"] = f"nobody heard them: {reason}"
    elif text_lm is None:
        skipped["perplexity of continuations"] = (
            "no text language model: --text_lm, any causal language model of Hugging Face"
        )
    else:
        rows = _with_likelihoods(rows, text_lm)
    columns = [*scorer.columns, *([PROMPT_SIMILARITY] if embedder is not None else [])]
    return ContinuationResult(_with_diversity(rows), columns, {**scorer.skipped, **skipped}, failures)


@dataclass(frozen=True)
class _Prompt:
    """The beginning of a recording, and the whole of it."""

    id: str
    number: int  # among the prompts: what is drawn for it depends on this
    waveform: Tensor  # (samples,) at the codec's rate: prompt and what follows, as far as it counts
    heard: Tensor  # (prompt frames * hop_length,) its beginning
    start: Prompt  # the beginning, coded by itself: nothing of what follows is in its codes

    @classmethod
    def of(
        cls,
        language_model: SpeechLM,
        utterance: Utterance,
        number: int,
        config: ContinuationConfig,
        gain: float,
    ) -> "_Prompt":
        codec = language_model.vocabulary.codec
        waveform = read_audio(utterance.path, codec.sampling_rate) * gain
        start = max(1, round(config.prompt_seconds * codec.frame_rate)) * codec.hop_length
        rest = min(len(waveform) - start, round(config.seconds * codec.sampling_rate))
        if rest < SHORTEST_SECONDS * codec.sampling_rate:
            raise UserError(_too_short(utterance.id, len(waveform) / codec.sampling_rate, config))
        heard = waveform[:start]
        return cls(utterance.id, number, waveform[: start + rest], heard, language_model.read(heard))

    @property
    def rest_samples(self) -> int:
        """What follows, (samples,)."""
        return len(self.waveform) - len(self.heard)


def _too_short(name: str, seconds: float, config: ContinuationConfig) -> str:
    return (
        f"{name} is {seconds:.1f} s long: it does not go on for {SHORTEST_SECONDS:g} s after a prompt of "
        f"{config.prompt_seconds:g} s"
    )


def _continue(
    language_model: SpeechLM, prompt: _Prompt, samples: int, sampling: SamplingConfig, seed: int
) -> list[tuple[Continuation, Tensor]]:
    """Samples of the model, generated together: each with the audio of prompt and continuation."""
    vocabulary, codec = language_model.vocabulary, language_model.vocabulary.codec
    size = vocabulary.num_quantizers
    given = vocabulary.codes_to_ids(prompt.start.codes)
    frames = max(1, round(prompt.rest_samples / codec.hop_length))
    ids = np.concatenate([[vocabulary.speech_id], given])
    if len(ids) + frames * size + 1 > language_model.decoder.longest:
        raise UserError(
            f"{prompt.id}: prompt and continuation have {len(ids) + frames * size} tokens, the model reads "
            f"{language_model.decoder.longest}: shorten continuation.seconds"
        )
    stuck = _BOUNDS.stuck_frames(codec.frame_rate)
    rows = [SpeakingRow(ids, [Span(0, frames)], vocabulary, stuck) for _ in range(samples)]
    for number, row in enumerate(rows):
        row.draws = (prompt.number, number)
    generate(language_model.decoder, rows, language_model.sets, sampling, seed)
    made = []
    for number, row in enumerate(rows):
        codes, audio = language_model.decode([*given.tolist(), *row.drawn], prompt.start.voice)
        new = codes[:, len(given) // size :]
        made.append(
            (
                Continuation(
                    prompt.id,
                    MODEL,
                    number,
                    new.shape[1] / codec.frame_rate,
                    row.cut is None,
                    row.cut,
                    code_repetition(new.numpy()),
                ),
                audio,
            )
        )
    return made


def _own(language_model: SpeechLM, prompt: _Prompt) -> list[tuple[Continuation, Tensor]]:
    """How the recording itself goes on, as it is and as the codec keeps it."""
    vocabulary, codec = language_model.vocabulary, language_model.vocabulary.codec
    whole = language_model.read(prompt.waveform)
    codes, decoded = language_model.decode(vocabulary.codes_to_ids(whole.codes), whole.voice)
    repetition = code_repetition(codes[:, len(prompt.heard) // codec.hop_length :].numpy())
    seconds = prompt.rest_samples / codec.sampling_rate
    return [
        (Continuation(prompt.id, RECORDING, 0, seconds, None, None, None), prompt.waveform),
        (
            Continuation(prompt.id, CEILING, 0, seconds, None, None, repetition),
            decoded[: len(prompt.waveform)],
        ),
    ]


def _write(output: Path, row: Continuation, audio: Tensor, rate: int) -> str:
    path = Path("continuations") / f"{file_name(row.id)}.{row.sample}.wav"
    (output / path).parent.mkdir(parents=True, exist_ok=True)
    write_audio(output / path, audio if len(audio) else torch.zeros(1), rate)
    return path.as_posix()


def _with_likelihoods(rows: Sequence[Continuation], text_lm: TextLM) -> list[Continuation]:
    scored = []
    with Progress(len(rows), unit="transcripts", label=f"reading with {text_lm.name}") as progress:
        for row in rows:
            text = (row.transcript or "").strip()
            scored.append(replace(row, likelihood=text_lm.likelihood(text) if text else None))
            progress.update(1)
    return scored


def _with_diversity(rows: Sequence[Continuation]) -> list[Continuation]:
    """auto-BLEU and self-BLEU of the transcripts."""
    words = [normalize_transcript(row.transcript or "").split() for row in rows]
    among = _self_bleu_by(words, [(row.system, row.sample) for row in rows])
    of_prompt = _self_bleu_by(words, [(row.system, row.id) for row in rows])
    return [
        replace(row, auto_bleu=auto_bleu(text), self_bleu=all_prompts, samples_self_bleu=one_prompt)
        for row, text, all_prompts, one_prompt in zip(rows, words, among, of_prompt, strict=True)
    ]


def _self_bleu_by(words: Sequence[Sequence[str]], keys: Sequence[tuple[str, str | int]]) -> list[float]:
    """self-BLEU of each text among those with its key."""
    groups: dict[tuple[str, str | int], list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    scores = [math.nan] * len(words)
    for members in groups.values():
        for number, score in zip(members, self_bleu([words[number] for number in members]), strict=True):
            scores[number] = score
    return scores


def _by_id(rows: Sequence[Continuation]) -> dict[str, list[Continuation]]:
    groups: dict[str, list[Continuation]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    return groups


def _share(groups: Sequence[Sequence[bool | None]]) -> Interval:
    """Of what is true, over groups; None is not asked."""
    known = [[value for value in group if value is not None] for group in groups]
    return clustered_share(
        np.array([sum(group) for group in known], float), np.array([len(group) for group in known], float)
    )


def _mean(values: Sequence[float]) -> float:
    """Of what is not NaN; NaN of nothing."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan
