"""evaluate-codec."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codec.foundation import UserError
from data.config import CorpusFormat
from recipes.cli.measuring import (
    MEASURED_WITH,
    NO_SPEAKER_MODEL,
    of_split,
    say_what_is_missing,
    spread,
    utmos_judge,
)
from recipes.reporting.provenance import provenance

if TYPE_CHECKING:
    from codec import Codec
    from codec.metrics import Judge
    from recipes.evaluation.codec_evaluation import NamedCodec

Split = Literal["train", "validation", "test"]


def evaluate_codec(
    codec: list[str],
    corpus: str,
    output: Path,
    split: Split = "validation",
    format: CorpusFormat = "auto",
    gain: float = 1.0,
    quantizers: list[int] | None = None,
    metrics: list[str] | None = None,
    asr: str = "pocketsphinx",
    asr_language: str | None = None,
    speaker_model: str | None = None,
    utmos: Path | None = None,
    stability: int = 20,
    probes: int = 0,
    alignment: Path | None = None,
    limit: int | None = None,
    processes: int = 2,
    device: str = "auto",
) -> int:
    """How well codecs keep speech: every recording beside what comes back, in numbers, pictures and audio.

    Leaves results.json, report.md, utterances.parquet, codes.png, spectrogram.png and examples/ in the output.

    Args:
        codec: a bundled codec's name, a directory, or a hub id (kyutai/mimi:8 for its first 8 quantizers); several
            are put side by side: --codec hh-codec-tiny --codec kyutai/mimi:8.
        corpus: where the recordings are.
        output: directory for the results.
        split: which of the corpus's utterances.
        format: the corpus's layout.
        gain: factor on every recording before anything else; for corpora recorded too low.
        quantizers: rows for the first so many quantizers too, of codecs that have more: [1, 2, 4] says how much each
            of them adds.
        metrics: of log_mel_l1, multi_resolution_stft, stoi, pesq, voicing, prosody, dnsmos; all when unset, [] for
            codes only.
        asr: hears recordings and output for the error rates: pocketsphinx (US English, offline), none, or a
            Hugging Face speech recogniser by hub id or directory.
        asr_language: for a multilingual Whisper model; it guesses when unset.
        speaker_model: a Hugging Face speaker verification model by hub id or directory, such as
            microsoft/wavlm-base-plus-sv, for the similarity of speakers.
        utmos: the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS, for UTMOS.
        stability: of so many recordings, changed versions are coded too (shifted, turned down, made noisy,
            resampled), to count the codes that stay; 0 for none.
        probes: of so many utterances of the training split, what each quantizer's codes say of the characters
            being spoken (where words have times) and of the speaker (where there are several); 0 for none.
        alignment: word times for the probes that codec-slm align made, where the corpus has none of its own.
        limit: only so many utterances, evenly spread over the split.
        processes: workers that compute metrics and recognise speech.
        device: for the codecs and the Hugging Face models; auto takes a GPU where there is one.
    """
    from codec import CodecInfo
    from data import open_corpus, with_alignment
    from recipes.cli.common import load_codec_on, resolve_device
    from recipes.evaluation.codec_evaluation import evaluate
    from recipes.evaluation.codec_report import write_codec_report
    from recipes.evaluation.probes import probe
    from recipes.evaluation.scoring import Scorer

    if stability < 0 or probes < 0:
        raise UserError(f"stability is {stability}, probes {probes}: a number of recordings, or 0 for none")
    where = resolve_device(device)
    listing = open_corpus(corpus, format=format)
    utterances = spread(of_split(listing, corpus, split, "--split"), limit)
    whole = _named({location: load_codec_on(location, where) for location in codec}, len(codec))
    codecs, locations = _with_prefixes(whole, codec, quantizers or [], where)
    probed = []
    if probes:
        if alignment is not None:
            listing = with_alignment(listing, alignment)
        probed = probe(whole, spread(listing.split("train"), probes), gain, where)
    judges, not_given = _judges(speaker_model, utmos, where)
    if asr == "none":
        not_given["word and character error rate"] = "no recogniser: --asr none"
    with Scorer(metrics, asr, processes, where, asr_language, judges, not_given) as scorer:
        evaluation = evaluate(codecs, utterances, scorer, gain, where, stability)
        facts: dict[str, Any] = {
            **provenance(where, MEASURED_WITH),
            "codecs": {
                named.name: {**CodecInfo.of(named.codec).to_dict(), "location": locations[named.name]}
                for named in codecs
            },
            "corpus": {"name": listing.name, "location": corpus, "split": split, "gain": gain},
            "asr": scorer.asr,
            "probes": {entry.codec: entry.to_dict() for entry in probed},
            "speaker_model": speaker_model,
            "utmos": None if utmos is None else utmos.name,
        }
    table = write_codec_report(output, evaluation, facts, probed)
    print(table)
    say_what_is_missing(evaluation.skipped)
    if evaluation.failures:
        print(f"{len(evaluation.failures)} recordings could not be read; the report names them")
    print(f"\ndetails: {output / 'report.md'}")
    return 0


def _named(codecs: "dict[str, Codec]", asked: int) -> "list[NamedCodec]":
    """Codecs by location -> with names for the tables: their own, and where two have one, the locations."""
    from recipes.evaluation.codec_evaluation import NamedCodec

    if not codecs or len(codecs) < asked:
        raise UserError("give --codec, each codec once")
    names = [loaded.config.name for loaded in codecs.values()]
    return [
        NamedCodec(location if names.count(loaded.config.name) > 1 else loaded.config.name, loaded)
        for location, loaded in codecs.items()
    ]


def _with_prefixes(
    whole: "list[NamedCodec]", locations: list[str], quantizers: list[int], device: str
) -> "tuple[list[NamedCodec], dict[str, str]]":
    """Each codec after those of its first few quantizers; and by name where each is."""
    from codec.loading import split_count
    from recipes.cli.common import load_codec_on
    from recipes.evaluation.codec_evaluation import NamedCodec

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


def _judges(
    speaker_model: str | None, utmos: Path | None, device: str
) -> "tuple[list[Judge], dict[str, str]]":
    """Metrics by neural networks whose weights were given, and what it takes for the others."""
    from codec.metrics import SpeakerEmbedder, SpeakerSimilarity

    judges, not_given = utmos_judge(utmos, device)
    if speaker_model is not None:
        judges.insert(0, SpeakerSimilarity(SpeakerEmbedder(speaker_model, device)))
    else:
        not_given["speaker similarity"] = NO_SPEAKER_MODEL
    return judges, not_given
