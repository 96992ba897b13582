"""What every tokenizer of a study goes through, stage by stage."""

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codec.foundation import UserError
from codec.metrics import CodebookUse
from data import TokenDataset, TokenizeOptions, tokenize_corpus, train_text_tokenizer
from recipes.evaluation.inputs import spread
from recipes.study.cells import Cell, Stage, Stopped, computed_by, file_hash, measured_by, versions
from recipes.study.config import KMeansBaseline, StudyConfig
from recipes.study.evaluation import reconstruct, speak
from recipes.study.language_model import decides, learn, predict
from recipes.study.material import (
    Material,
    Tokenizer,
    content_hash,
    fitted_tokenizer,
    named_tokenizer,
)
from slm.evaluation.ngrams import NgramModel

_MAX_FAILURES = 0.01  # share of the recordings


@dataclass(frozen=True)
class Outcome:
    """All cells of one tokenizer."""

    tokenizer: Tokenizer
    tokens: Cell
    codes: Cell
    reconstruction: Cell
    language_model: Cell
    prediction: Cell
    speech: Cell | None  # None where nothing was to be said


def text_stage(config: StudyConfig, material: Material) -> Stage:
    """The text tokenizer that all language models share."""

    def train(directory: Path) -> dict[str, Any]:
        # a corpus without transcripts needs a text vocabulary all the same: no token of it is ever seen
        train_text_tokenizer(
            material.texts or ["abcdefghijklmnopqrstuvwxyz"], directory / "text.model", kind="char"
        )
        return {"sha256": hashlib.sha256((directory / "text.model").read_bytes()).hexdigest()}

    texts = hashlib.sha256("\n".join(material.texts).encode()).hexdigest()
    return Stage("text", "characters", {"texts": texts, "versions": versions("sentencepiece")}, train)


def steps(
    config: StudyConfig, tokenizer: str | KMeansBaseline, material: Material, text_model: Path, device: str
) -> Generator[Stage, Cell, Outcome]:
    """Yield each stage, be sent its cell, return the outcome.

    Whoever drives it may stop at any stage, so the same code says what is to be done and does it.
    """
    if isinstance(tokenizer, KMeansBaseline):
        ready = yield from fitted_tokenizer(config, tokenizer, material, device)
    else:
        ready = named_tokenizer(config.name_of(tokenizer), tokenizer, device)
    tokens = yield _tokens_stage(config, ready, material, device)
    dataset = tokens.path / "tokens"
    codes = yield Stage(
        "codes",
        ready.name,
        {"tokens": tokens.result["content_hash"]},
        lambda _: code_facts(dataset),
        version=2,
    )
    evaluated = spread(material.held_out, config.reconstruction.utterances)
    held_out = content_hash(material.corpus.part(evaluated))
    reconstruction = yield Stage(
        "reconstruction",
        ready.name,
        {
            "codec": [ready.info.to_dict(), ready.hash],
            "recordings": held_out,
            "settings": asdict(config.reconstruction),
            "gain": config.gain,
            "computed_by": computed_by(config, device, "torchaudio"),
            "measured_by": measured_by(config, config.reconstruction.metrics),
        },
        lambda directory: reconstruct(config, ready, material, evaluated, directory, device),
        version=2,
    )
    model = yield Stage(
        "language-model",
        ready.name,
        {
            "tokens": tokens.result["content_hash"],
            "codec": ready.info.fingerprint,
            "text_model": file_hash(text_model),
            "settings": decides(config),
            "computed_by": computed_by(config, device, "transformers", "accelerate", "sentencepiece"),
        },
        lambda directory: learn(config, ready, dataset, text_model, bool(material.texts), directory),
        resumes=True,
        version=2,
    )
    checkpoint = model.path / "run" / "final"
    prediction = yield Stage(
        "prediction",
        ready.name,
        {
            "language_model": model.path.name,
            "tokens": tokens.result["content_hash"],
            "computed_by": computed_by(config, device, "transformers", "sentencepiece"),
        },
        lambda _: predict(checkpoint, dataset, config.documents, config.batch.length, device),
    )
    speech = None
    speaking = config.speaking
    if speaking.sentences or speaking.continuations:
        speech = yield Stage(
            "speech",
            ready.name,
            {
                "language_model": model.path.name,
                "codec": ready.hash,
                "recordings": content_hash(material.corpus.part(material.held_out)),
                "settings": asdict(speaking),
                "sampling": asdict(config.sampling),
                "gain": config.gain,
                "seed": config.seed,
                "computed_by": computed_by(config, device, "torchaudio", "transformers", "sentencepiece"),
                "measured_by": measured_by(config, speaking.metrics),
            },
            lambda directory: speak(config, ready, checkpoint, material, directory, device),
            version=2,
        )
    return Outcome(ready, tokens, codes, reconstruction, model, prediction, speech)


def _tokens_stage(config: StudyConfig, ready: Tokenizer, material: Material, device: str) -> Stage:
    options = TokenizeOptions(speeds=tuple(config.speeds), shifts=config.shifts, gain=config.gain)

    def work(directory: Path) -> dict[str, Any]:
        result = tokenize_corpus(ready.codec, material.corpus, directory / "tokens", options, workers=0)
        if result.metadata is None:
            raise Stopped
        if result.too_many_failures(_MAX_FAILURES):
            raise UserError(
                f"{material.corpus.location}: {result.metadata['failures']} recordings could not be tokenized; "
                f"{directory / 'tokens' / 'failures.jsonl'} says why"
            )
        TokenDataset.open(directory / "tokens", "validation")  # says what is missing
        return {
            key: result.metadata[key] for key in ("content_hash", "rows", "seconds", "failures", "splits")
        }

    inputs = {
        "codec": ready.info.to_dict(),
        "corpus": material.hash,
        "options": asdict(options),
        "computed_by": computed_by(config, device, "torchaudio", "soundfile"),
    }
    return Stage("tokens", ready.name, inputs, work, resumes=True, version=2)


# ---- the stage of the codes: what can be said of them without a neural network


def code_facts(dataset: Path) -> dict[str, Any]:
    """Use of the codebooks over the training split, and what n-grams of it say of the validation split, row by row."""
    training, held_out = (TokenDataset.open(dataset, split) for split in ("train", "validation"))
    info = training.info
    use = CodebookUse(info.codebook_sizes)
    for stream in _streams(training):
        use.update(stream.reshape(-1, info.num_quantizers).T)
    return {
        "codebooks": [asdict(statistics) for statistics in use.statistics()],
        "counts": [counts.tolist() for counts in use.counts],
        "nominal_bitrate": use.nominal_bitrate(info.frame_rate),
        "entropy_bitrate": use.entropy_bitrate(info.frame_rate),
        "held_out": {
            "ids": [held_out.id(row) for row in range(len(held_out))],
            "tokens": [len(stream) for stream in _streams(held_out)],
        },
        "ngrams": [{"order": order, "bits": _bits(training, held_out, order)} for order in (1, 2, 3)],
    }


def _bits(training: TokenDataset, held_out: TokenDataset, order: int) -> list[float]:
    """Of each held-out row, by n-grams of the training rows."""
    model = NgramModel(_streams(training), training.info.codebook_sizes, order)
    told = (model.entropy([stream]) for stream in _streams(held_out))
    return [entropy.bits_per_token * entropy.tokens if entropy.tokens else 0.0 for entropy in told]


def _streams(dataset: TokenDataset) -> Iterator[np.ndarray]:
    return (dataset.codes(row) for row in range(len(dataset)))
