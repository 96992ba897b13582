"""What is left of a study, and how long it will take here: each kind of work is timed for a moment."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from codec import CodecInfo, load_codec
from codec.kmeans_codec import kmeans_codec
from codec.metrics.codes import perturbations
from codec.nn.nearest import nearest
from data import AudioError, read_audio
from recipes.evaluation.reconstruction import Reconstructor
from recipes.evaluation.scoring import Scorer, ScoringTask
from recipes.evaluation.speed import codec_speed
from recipes.study.cells import Cells
from recipes.study.config import KMeansBaseline, StudyConfig
from recipes.study.material import Material
from recipes.study.steps import STAGES, steps
from recipes.study.training import VALIDATION_BLOCKS, read_format
from slm.generation.generate import generate
from slm.generation.grammar import Span, SpeakingRow, TokenSets
from slm.models.build import build_model
from slm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from codec import Codec

_TIMED_SECONDS = 3.0  # of a recording
_TIMED_ROWS = 2_048  # of a fit
_TIMED_TOKENS = 32  # of a generation


@dataclass(frozen=True)
class StageCost:
    """One stage of one tokenizer that is still to be done."""

    tokenizer: str
    stage: str
    amount: str  # of what, in words
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """All that is still to be done."""

    stages: Sequence[StageCost]
    finished: int  # stages that are there already
    processes: int

    @property
    def seconds(self) -> float:
        """Of wall-clock time: tokenizers run side by side, the stages of one behind each other."""
        by_tokenizer: dict[str, float] = {}
        for cost in self.stages:
            by_tokenizer[cost.tokenizer] = by_tokenizer.get(cost.tokenizer, 0.0) + cost.seconds
        free = [0.0] * self.processes
        for seconds in by_tokenizer.values():  # each to the process that is free first, in their order
            first = free.index(min(free))
            free[first] += seconds
        return max(free)


@dataclass(frozen=True)
class _Pace:
    """Seconds that kinds of work take here."""

    encode: float  # a second of audio
    decode: float
    fit: float  # an iteration of k-means over a row
    score: float  # a second of audio: metrics and recogniser
    listen: float  # the same of speech by itself
    train: float  # a token
    generate: float  # a second of speech


def forecast(
    config: StudyConfig, material: Material, cells: Cells, text_model: Path, device: str
) -> Forecast:
    """Find out what is there, and time what is not."""
    costs: list[StageCost] = []
    finished = 0
    for tokenizer in config.tokenizers:
        name = config.name_of(tokenizer)
        left = _left(config, tokenizer, material, cells, text_model, device)
        planned = _planned(config, tokenizer)
        finished += len(planned) - len(left)
        if left:
            codec = _codec(tokenizer, device)
            pace = _pace(config, codec, material, text_model, device, left)
            amounts = _amounts(config, tokenizer, codec, material, pace)
            costs += [StageCost(name, stage, *amounts[stage]) for stage in left]
    return Forecast(costs, finished, config.processes)


def _planned(config: StudyConfig, tokenizer: str | KMeansBaseline) -> list[str]:
    """The stages of a tokenizer."""
    speaks = bool(config.speaking.sentences or config.speaking.continuations)
    absent = {"fit"} if isinstance(tokenizer, str) else set()
    return [stage for stage in STAGES if stage not in absent | (set() if speaks else {"speech"})]


def _left(
    config: StudyConfig,
    tokenizer: str | KMeansBaseline,
    material: Material,
    cells: Cells,
    text_model: Path,
    device: str,
) -> list[str]:
    """The stages that are not finished; what depends on one that is not, is not."""
    walk = steps(config, tokenizer, material, text_model, device)
    left = _planned(config, tokenizer)
    try:
        stage = next(walk)
        while True:
            cell = cells.find(stage)
            if cell is None:
                return left
            left.remove(stage.name)
            stage = walk.send(cell)
    except StopIteration:
        return left


def _codec(tokenizer: str | KMeansBaseline, device: str) -> "Codec":
    if isinstance(tokenizer, str):
        return load_codec(tokenizer, device=device)
    source = load_codec(tokenizer.vocoder)
    model = kmeans_codec(source, tokenizer.codes, tokenizer.stride, tokenizer.name)
    return torch.nn.Module.to(model, device)


def _pace(
    config: StudyConfig,
    codec: "Codec",
    material: Material,
    text_model: Path,
    device: str,
    left: Sequence[str],
) -> _Pace:
    rate = codec.config.sampling_rate
    waveform = next(_readable(material, rate))[: round(_TIMED_SECONDS * rate)] * config.gain
    seconds = max(len(waveform) / rate, 1e-3)
    speed = codec_speed(Reconstructor(codec, device), [waveform], rate)
    score = listen = 0.0
    samples = waveform.numpy()
    text = "text"
    if "reconstruction" in left:
        with Scorer(config.reconstruction.metrics, config.asr, 1, device) as scorer:
            task = ScoringTask(samples, rate, samples, text)
            score = _timed(lambda: list(scorer.run([(0, task)]))) / seconds
    if "speech" in left:
        with Scorer(config.speaking.metrics, config.asr, 1, device) as scorer:
            listen = _timed(lambda: list(scorer.run([(0, ScoringTask(samples, rate, None, text))]))) / seconds
    fit = train = speaking = 0.0
    if "fit" in left:
        codebook = codec.effective_codebook().cpu()
        rows = torch.randn(_TIMED_ROWS, codebook.shape[1])
        fit = _timed(lambda: nearest(rows, codebook)) / _TIMED_ROWS
    if {"language-model", "prediction", "speech"} & set(left):
        train, speaking = _model_pace(config, CodecInfo.of(codec), text_model, device)
    return _Pace(1 / speed.encode, 1 / speed.decode, fit, score, listen, train, speaking)


def _readable(material: Material, rate: int) -> Iterator[torch.Tensor]:
    for utterance in material.held_out:
        try:
            yield read_audio(utterance.path, rate)
        except AudioError:
            continue
    yield torch.zeros(rate)  # the stages themselves say what is wrong


def _model_pace(config: StudyConfig, info: CodecInfo, text_model: Path, device: str) -> tuple[float, float]:
    """Seconds for a token to train on, and for a second of speech to generate, with an untrained model."""
    vocabulary = Vocabulary.build(text_model, info, [], None, info.name)
    model = build_model(replace(config.model, speech_embeddings="random"), vocabulary, seed=0)
    torch.nn.Module.to(model, device)
    ids = torch.randint(0, len(vocabulary), (1, config.batch.length), device=device)

    def update() -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)

    train = _timed(update) / config.batch.length
    model.eval()
    start = np.array([vocabulary.speech_id])
    frames = max(1, _TIMED_TOKENS // info.num_quantizers)
    row = SpeakingRow(start, [Span(frames, frames)], vocabulary, stuck_frames=0)
    sets = TokenSets(vocabulary, model.device)
    seconds = _timed(lambda: generate(model, [row], sets, config.sampling, 0), warm=False)
    return train, seconds / frames * info.frame_rate


def _timed(work: Callable[[], object], warm: bool = True) -> float:
    """Seconds of the second call; of the first where there can be no other."""
    if warm:
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _amounts(
    config: StudyConfig, tokenizer: str | KMeansBaseline, codec: "Codec", material: Material, pace: _Pace
) -> dict[str, tuple[str, float]]:
    """Of each stage: how much there is to do, in words, and the seconds it will take."""
    info = CodecInfo.of(codec)
    train, held_out = material.seconds["train"], material.seconds["validation"]
    encoded = train * len(config.speeds) * config.shifts + held_out
    mean = held_out / max(1, len(material.held_out))
    tokens = training_tokens(config, info, train, sum(map(len, material.texts)))
    judged = mean * min(config.reconstruction.utterances, len(material.held_out))
    tried = mean * min(
        config.reconstruction.stability, config.reconstruction.utterances, len(material.held_out)
    )
    changed = tried * len(perturbations(info.sampling_rate, info.hop_length))
    systems = 3 if getattr(codec.config, "vocoder_config", None) is not None else 2
    speaking = config.speaking
    read = mean * min(speaking.sentences, len(material.held_out)) if material.texts else 0.0
    gone_on = speaking.continuations * speaking.seconds
    coded = held_out * info.frame_rate * info.num_quantizers
    # no backward pass: a third
    checks = config.validations * 2 * min(coded, VALIDATION_BLOCKS * config.batch.length) / 3
    views = 2 if material.texts and read_format(config.documents.formats) is not None else 1
    amounts = {
        "tokens": (f"{encoded:,.0f} s of audio to encode", encoded * pace.encode),
        "codes": (f"{encoded * info.frame_rate * info.num_quantizers:,.0f} codes to count", 1.0),
        "reconstruction": (
            f"{judged:,.0f} s of audio to reconstruct and judge",
            judged * (pace.encode + (systems - 1) * pace.decode + systems * pace.score)
            + changed * pace.encode,
        ),
        "language-model": (f"{tokens:,.0f} tokens to train on", (tokens + checks) * pace.train),
        "prediction": (f"{views * coded:,.0f} held-out tokens to predict", views * coded / 3 * pace.train),
        "speech": (
            f"{read + gone_on:,.0f} s of speech to generate",
            (read * max(1, speaking.candidates) + gone_on) * (pace.generate + pace.decode)
            + read * (3 * pace.listen + pace.encode + pace.decode)
            + gone_on * pace.listen,
        ),
    }
    if isinstance(tokenizer, KMeansBaseline):
        frames = min(tokenizer.frames, train * info.frame_rate)
        # every recording is looked at; finding the starts costs about as much as eight iterations
        seconds = train * pace.encode + frames * (tokenizer.iterations + 8) * pace.fit
        amounts["fit"] = (f"{frames:,.0f} frames to fit {tokenizer.codes:,} codes to", seconds)
    return amounts


def training_tokens(config: StudyConfig, info: CodecInfo, seconds: float, characters: int) -> float:
    """Places in blocks that the budget comes to; for a budget of hours about, for it depends on the documents."""
    if config.steps is not None:
        return config.steps * config.batch.blocks * config.batch.length
    a_second = info.frame_rate * info.num_quantizers + characters / max(seconds, 1.0)
    return ceil(3_600 * (config.audio_hours or 0.0) * a_second)
