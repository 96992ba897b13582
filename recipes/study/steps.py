"""What every tokenizer of a study goes through, stage by stage."""

import hashlib
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codec import UserError
from data import TokenDataset, TokenizeOptions, tokenize_corpus, train_text_tokenizer
from recipes.study.cells import Cell, Stage, Stopped
from recipes.study.codes import code_facts
from recipes.study.config import KMeansBaseline, StudyConfig
from recipes.study.environment import computed_by, file_hash, measured_by, versions
from recipes.study.listening import speak
from recipes.study.material import Material, content_hash, part_of, spread
from recipes.study.prediction import predict
from recipes.study.reconstruction import reconstruct
from recipes.study.tokenizers import Tokenizer, fitted_tokenizer, named_tokenizer
from recipes.study.training import decides, learn

_MAX_FAILURES = 0.01  # share of the recordings

# in their order
STAGES = ("fit", "tokens", "codes", "reconstruction", "language-model", "prediction", "speech")


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
    held_out = content_hash(part_of(material.corpus, evaluated))
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
                "recordings": content_hash(part_of(material.corpus, material.held_out)),
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
