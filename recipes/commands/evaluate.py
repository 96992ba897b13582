"""Commands that measure: evaluate-codec, evaluate-slm."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from codec.runs import UserError
from data.corpora import CorpusFormat
from slm.sampling import SamplingConfig

Split = Literal["train", "validation", "test"]
_SAMPLING = SamplingConfig()


def evaluate_codec(
    codec: str,
    corpus: str,
    output: Path,
    split: Split = "validation",
    format: CorpusFormat = "auto",
    gain: float = 1.0,
    metrics: list[str] | None = None,
    asr: str = "pocketsphinx",
    asr_language: str | None = None,
    limit: int | None = None,
    processes: int = 2,
    device: str = "auto",
) -> int:
    """How well a codec keeps speech: every recording beside what comes back, in numbers, pictures and audio.

    Leaves results.json, report.md, utterances.parquet, codes.png, spectrogram.png and examples/ in the output.

    Args:
        codec: a bundled codec's name, a directory, or a hub id.
        corpus: where the recordings are.
        output: directory for the results.
        split: which of the corpus's utterances.
        format: the corpus's layout.
        gain: factor on every recording before anything else; for corpora recorded too low.
        metrics: of log_mel_l1, multi_resolution_stft, stoi, pesq, voicing; all when unset, [] for codes only.
        asr: hears recordings and output for the error rates: pocketsphinx (US English, offline), none, or a
            Hugging Face speech recogniser by hub id or directory.
        asr_language: for a multilingual Whisper model; it guesses when unset.
        limit: only so many utterances, evenly spread over the split.
        processes: workers that compute metrics and recognise speech.
        device: for the codec and a Hugging Face recogniser; auto takes a GPU where there is one.
    """
    from codec import CodecInfo, load_codec
    from data import open_corpus
    from recipes.commands.data import _device as resolve_device
    from recipes.evaluation.codec_evaluation import evaluate
    from recipes.evaluation.codec_report import write_codec_report
    from recipes.evaluation.scoring import Scorer

    where = resolve_device(device)
    listing = open_corpus(corpus, format=format)
    utterances = listing.split(split)
    if not utterances:
        there = ", ".join(f"{name} ({count})" for name, count in listing.splits.items())
        raise UserError(f"{corpus} has no {split} split: it has {there}; choose one with --split")
    utterances = _spread(utterances, limit)
    model = load_codec(codec, device=where)
    with Scorer(metrics, asr, processes, where, asr_language) as scorer:
        evaluation = evaluate(model, utterances, scorer, gain, where)
        facts: dict[str, Any] = {
            "command": _command_line(),
            "codec": {**CodecInfo.of(model).to_dict(), "location": codec},
            "corpus": {"name": listing.name, "location": corpus, "split": split, "gain": gain},
            "asr": scorer.asr,
            "versions": _versions(),
        }
    table = write_codec_report(output, evaluation, facts)
    print(table)
    for reason in evaluation.skipped.values():
        print(f"not measured: {reason}")
    if evaluation.failures:
        print(f"{len(evaluation.failures)} recordings could not be read; the report names them")
    print(f"\ndetails: {output / 'report.md'}")
    return 0


def evaluate_slm(
    sentences: Path,
    output: Path,
    model: str = "slm-tiny",
    voices: list[str] | None = None,
    references: str | None = None,
    asr: str = "pocketsphinx",
    asr_language: str | None = None,
    sampling: SamplingConfig = _SAMPLING,
    candidates: int = 1,
    limit: int | None = None,
    processes: int = 2,
    device: str = "auto",
    seed: int = 0,
) -> int:
    """How well a speech language model speaks: sentences read aloud, and what a recogniser makes of them.

    Leaves results.json, report.md, sentences.parquet, spectrogram.png and audio/ in the output.

    Args:
        sentences: a text file with one sentence a line, or .jsonl with objects that have a text (and an id).
        output: directory for the results.
        model: a bundled model's name, a directory, or a hub id.
        voices: voice tags to speak with, in turn; all that the model has when unset.
        references: a corpus of the same sentences spoken, by whoever; gives the lengths to compare with, the error
            rates that recordings have, and those of recordings as the codec keeps them: the ceiling.
        asr: hears the speech for the error rates: pocketsphinx (US English, offline), none, or a Hugging Face
            speech recogniser by hub id or directory.
        asr_language: for a multilingual Whisper model; it guesses when unset.
        sampling: how tokens are drawn.
        candidates: so many are spoken of each sentence, and the one taken that the model itself hears best.
        limit: only so many sentences, evenly spread over the file.
        processes: workers that recognise speech.
        device: for the model and a Hugging Face recogniser; auto takes a GPU where there is one.
        seed: of the sampling.
    """
    import torch

    from data import open_corpus
    from recipes.commands.data import _device as resolve_device
    from recipes.evaluation.scoring import Scorer
    from recipes.evaluation.sentences import References, read_sentences
    from recipes.evaluation.slm_evaluation import evaluate
    from recipes.evaluation.slm_report import write_slm_report
    from slm.speech_lm import SpeechLM

    texts = _spread(read_sentences(sentences), limit)
    where = resolve_device(device)
    spoken = References(open_corpus(references).utterances) if references is not None else None
    language_model = SpeechLM.from_pretrained(model, device=where)
    chosen: list[str | None] = [*(voices or language_model.vocabulary.voices)] or [None]
    with Scorer([], asr, processes, where, asr_language) as scorer:
        evaluation = evaluate(
            language_model, texts, chosen, spoken, scorer, output, sampling, candidates, seed
        )
        facts: dict[str, Any] = {
            "command": _command_line(),
            "model": model,
            "codec": language_model.vocabulary.codec.to_dict(),
            "sentences": {"location": str(sentences), "count": len(texts)},
            "references": references,
            "sampling": {**asdict(sampling), "candidates": candidates, "seed": seed},
            "asr": scorer.asr,
            "device": where,
            "threads": torch.get_num_threads(),
            "versions": _versions(),
        }
    table = write_slm_report(output, evaluation, facts)
    print(table)
    for reason in evaluation.skipped.values():
        print(f"not measured: {reason}")
    print(f"\ndetails: {output / 'report.md'}")
    return 0


def _spread(items: list[Any], limit: int | None) -> list[Any]:
    """`limit` of the items, evenly over the list: corpora are sorted by speaker or book."""
    if limit is None or limit >= len(items):
        return items
    if limit < 1:
        raise UserError(f"limit is {limit}: it must be at least 1")
    return [items[i * len(items) // limit] for i in range(limit)]


def _command_line() -> str:
    """What was typed, so that a report says how to make it again."""
    return " ".join(["codec-slm", *map(shlex.quote, sys.argv[1:])])


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in (
        "codec-slm",
        "torch",
        "transformers",
        "pystoi",
        "pesq",
        "pyworld",
        "jiwer",
        "pocketsphinx",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
