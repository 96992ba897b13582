"""What the commands that measure have in common: what is taken of a corpus, judges, and what is said at the end."""

from pathlib import Path
from typing import Any

from codec import Codec
from codec.foundation import UserError
from codec.loading import split_count
from codec.metrics import UTMOS, Judge, SpeakerEmbedder, SpeakerSimilarity
from data import Corpus, Utterance
from recipes.evaluation.codec_evaluation import NamedCodec
from recipes.loading import load_codec_on

MEASURED_WITH = ("pystoi", "pesq", "pyworld", "jiwer", "pocketsphinx", "speechmos", "onnxruntime")
NO_SPEAKER_MODEL = "no model: --speaker_model, such as microsoft/wavlm-base-plus-sv"


def utmos_judge(weights: Path | None, device: str) -> tuple[list[Judge], dict[str, str]]:
    """UTMOS where its weights were given, and what it takes where they were not."""
    if weights is not None:
        return [UTMOS(weights, device)], {}
    return [], {"UTMOS": "no weights: --utmos utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS"}


def say_what_is_missing(skipped: dict[str, str]) -> None:
    """A line for each."""
    for name, reason in skipped.items():
        print(f"not measured: {name} ({reason})")


def of_split(listing: Corpus, location: str, split: str, flag: str) -> list[Utterance]:
    """The utterances of a split. Raises UserError where there are none; `flag` chooses another."""
    utterances = listing.split(split)
    if not utterances:
        there = ", ".join(f"{name} ({count})" for name, count in listing.splits.items())
        raise UserError(f"{location} has no {split} split: it has {there}; choose one with {flag}")
    return utterances


def spread(items: list[Any], limit: int | None) -> list[Any]:
    """`limit` of the items, evenly over the list: corpora are sorted by speaker or book."""
    if limit is None or limit >= len(items):
        return items
    if limit < 1:
        raise UserError(f"limit is {limit}: it must be at least 1")
    return [items[i * len(items) // limit] for i in range(limit)]


def named_codecs(codecs: dict[str, Codec], asked: int) -> list[NamedCodec]:
    """Codecs by location -> with names for the tables: their own, and where two have one, the locations."""
    if not codecs or len(codecs) < asked:
        raise UserError("give --codec, each codec once")
    names = [loaded.config.name for loaded in codecs.values()]
    return [
        NamedCodec(location if names.count(loaded.config.name) > 1 else loaded.config.name, loaded)
        for location, loaded in codecs.items()
    ]


def with_prefixes(
    whole: list[NamedCodec], locations: list[str], quantizers: list[int], device: str
) -> tuple[list[NamedCodec], dict[str, str]]:
    """Each codec after those of its first few quantizers; and by name where each is."""
    if any(count < 1 for count in quantizers):
        raise UserError(f"--quantizers {quantizers}: numbers of quantizers, each at least 1")
    codecs, found = [], {}
    for named, location in zip(whole, locations, strict=True):
        for count in sorted(set(quantizers)):
            if count < len(named.codec.config.codebook_sizes):
                name = f"{named.name}:{count}"
                where, _ = split_count(location)
                codecs.append(NamedCodec(name, load_codec_on(where, device, count), is_prefix=True))
                found[name] = f"{where}:{count}"
        codecs.append(named)
        found[named.name] = location
    return codecs, found


def codec_judges(
    speaker_model: str | None, utmos: Path | None, device: str
) -> tuple[list[Judge], dict[str, str]]:
    """Metrics by neural networks whose weights were given, and what it takes for the others."""
    judges, not_given = utmos_judge(utmos, device)
    if speaker_model is not None:
        judges.insert(0, SpeakerSimilarity(SpeakerEmbedder(speaker_model, device)))
    else:
        not_given["speaker similarity"] = NO_SPEAKER_MODEL
    return judges, not_given
