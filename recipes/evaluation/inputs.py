"""What the commands that measure have in common: what is taken of a corpus, judges, and what is said at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from codec import Codec
from codec.foundation import UserError
from codec.loading import split_count
from codec.metrics import (
    UTMOS,
    WAVEFORM_METRICS,
    Judge,
    MissingDependency,
    SpeakerEmbedder,
    SpeakerSimilarity,
    open_embedder,
)
from data import Corpus, Utterance
from recipes.evaluation.codec_evaluation import NamedCodec
from recipes.loading import load_codec_on

MEASURED_WITH = (
    *("pystoi", "pesq", "pyworld", "jiwer", "pocketsphinx", "speechmos", "onnxruntime"),
    *("distillmos", "faster-whisper", "resemblyzer"),
)

Item = TypeVar("Item")


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


@dataclass(frozen=True)
class NetworkJudges:
    """Metrics by neural networks: those whose weights were given, and what it takes for the others."""

    alone: list[Judge]  # need no reference
    embedder: SpeakerEmbedder | None  # tells speakers apart
    not_given: dict[str, str]  # metric -> what it takes

    @property
    def comparing(self) -> list[Judge]:
        """All that judge a codec's output beside its recording."""
        return [*([SpeakerSimilarity(self.embedder)] if self.embedder is not None else []), *self.alone]

    @classmethod
    def open(cls, speaker_model: str | None, utmos: str | Path | None, device: str, flag: str = "--") -> Self:
        """Load what is given; `flag` stands before the names of the settings that are not.

        A metric whose package is optional belongs here too: opened where the package is installed, else named in
        `not_given`. Raises UserError for weights that cannot be loaded.
        """
        not_given = {}
        if utmos is None:
            not_given["UTMOS"] = (
                f"no weights: {flag}utmos, the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS"
            )
        embedder = None
        if speaker_model is None:
            not_given["speaker similarity"] = (
                f"no model: {flag}speaker_model resemblyzer, or such as speechbrain/spkrec-ecapa-voxceleb"
            )
        else:
            try:
                embedder = open_embedder(speaker_model, device)
            except MissingDependency as missing:
                not_given["speaker similarity"] = str(missing)
        return cls([] if utmos is None else [UTMOS(utmos, device)], embedder, not_given)


def metrics_of_speech_alone(names: Sequence[str] | None) -> list[str]:
    """The waveform metrics that need no reference, or those of them that are named.

    Raises UserError for others.
    """
    alone = [metric.name for metric in WAVEFORM_METRICS if not metric.needs_reference]
    if unknown := [name for name in names or [] if name not in alone]:
        raise UserError(f"no metric {', '.join(unknown)} of speech by itself; there are {', '.join(alone)}")
    return alone if names is None else list(names)


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """`limit` of the items, evenly over the list: corpora are sorted by speaker or book."""
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise UserError(f"limit is {limit}: it must be at least 1")
    return [items[number * len(items) // limit] for number in range(limit)]
