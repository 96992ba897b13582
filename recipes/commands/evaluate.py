"""Commands that measure: evaluate-codec, evaluate-slm."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codec.runs import UserError
from data.corpora import CorpusFormat
from recipes.evaluation.slm_settings import ContinuationConfig
from recipes.provenance import provenance
from slm.generation.sampling import SamplingConfig

if TYPE_CHECKING:
    from codec import Codec
    from data import Corpus, Utterance
    from recipes.evaluation.codec_evaluation import NamedCodec
    from recipes.evaluation.scoring import Judge

Split = Literal["train", "validation", "test"]
_MEASURED_WITH = ("pystoi", "pesq", "pyworld", "jiwer", "pocketsphinx", "speechmos", "onnxruntime")
_SAMPLING = SamplingConfig()
_CONTINUATION = ContinuationConfig()


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
    from recipes.commands.common import load_codec_on, resolve_device
    from recipes.evaluation.codec_evaluation import evaluate
    from recipes.evaluation.codec_report import write_codec_report
    from recipes.evaluation.probes import probe
    from recipes.evaluation.scoring import Scorer

    if stability < 0 or probes < 0:
        raise UserError(f"stability is {stability}, probes {probes}: a number of recordings, or 0 for none")
    where = resolve_device(device)
    listing = open_corpus(corpus, format=format)
    utterances = _spread(_of_split(listing, corpus, split, "--split"), limit)
    whole = _named({location: load_codec_on(location, where) for location in codec}, len(codec))
    codecs, locations = _with_prefixes(whole, codec, quantizers or [], where)
    probed = []
    if probes:
        if alignment is not None:
            listing = with_alignment(listing, alignment)
        probed = probe(whole, _spread(listing.split("train"), probes), gain, where)
    judges, not_given = _judges(speaker_model, utmos, where)
    if asr == "none":
        not_given["word and character error rate"] = "no recogniser: --asr none"
    with Scorer(metrics, asr, processes, where, asr_language, judges, not_given) as scorer:
        evaluation = evaluate(codecs, utterances, scorer, gain, where, stability)
        facts: dict[str, Any] = {
            **provenance(where, _MEASURED_WITH),
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
    _say_what_is_missing(evaluation.skipped)
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
    from recipes.commands.common import load_codec_on
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


_NO_SPEAKER_MODEL = "no model: --speaker_model, such as microsoft/wavlm-base-plus-sv"


def _judges(
    speaker_model: str | None, utmos: Path | None, device: str
) -> "tuple[list[Judge], dict[str, str]]":
    """Metrics by neural networks whose weights were given, and what it takes for the others."""
    from codec.metrics import SpeakerEmbedder, SpeakerSimilarity

    judges, not_given = _utmos(utmos, device)
    if speaker_model is not None:
        judges.insert(0, SpeakerSimilarity(SpeakerEmbedder(speaker_model, device)))
    else:
        not_given["speaker similarity"] = _NO_SPEAKER_MODEL
    return judges, not_given


def _utmos(weights: Path | None, device: str) -> "tuple[list[Judge], dict[str, str]]":
    from codec.metrics import UTMOS

    if weights is not None:
        return [UTMOS(weights, device)], {}
    return [], {"UTMOS": "no weights: --utmos utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS"}


def _say_what_is_missing(skipped: dict[str, str]) -> None:
    for name, reason in skipped.items():
        print(f"not measured: {name} ({reason})")


def evaluate_slm(
    output: Path,
    sentences: Path | None = None,
    pairs: list[str] | None = None,
    continuations: str | None = None,
    cross_modal: list[str] | None = None,
    model: str = "slm-tiny",
    voices: list[str] | None = None,
    references: str | None = None,
    metrics: list[str] | None = None,
    asr: str = "pocketsphinx",
    asr_language: str | None = None,
    speaker_model: str | None = None,
    utmos: Path | None = None,
    text_lm: str | None = None,
    sampling: SamplingConfig = _SAMPLING,
    candidates: int = 1,
    continuation: ContinuationConfig = _CONTINUATION,
    retrieval_candidates: int = 10,
    limit: int | None = None,
    processes: int = 2,
    device: str = "auto",
    seed: int = 0,
) -> int:
    """How well a speech language model speaks, goes on, tells right speech from wrong, and connects speech with text.

    Sentences are read aloud and heard by a recogniser; recordings are gone on with; of pairs of recordings the likelier
    one should be the right one; text should make its speech likelier, and speech its text. Recordings, and recordings
    through the codec, stand beside what the model says. Leaves results.json, report.md, spectrogram.png, audio/,
    continuations/, and what was measured of every sentence, continuation, pair and row in Parquet in the output.

    Args:
        output: directory for the results.
        sentences: a text file with one sentence a line, or .jsonl with objects that have a text (and an id).
        pairs: likelihood tests, each a .jsonl file of `good` and `bad` recordings (paths or lists of codes),
            a directory with gold.csv (sWUGGY, sBLIMP), or the directories of SALMon or of spoken StoryCloze; several
            as --pairs A --pairs B.
        continuations: a corpus of held-out recordings whose first seconds are the prompts to go on from.
        cross_modal: token datasets in whose validation rows speech and text are predicted, alone and from each
            other; several as --cross_modal A --cross_modal B.
        model: a bundled model's name, a directory, or a hub id.
        voices: voice tags to speak with, in turn; all that the model has when unset.
        references: a corpus of the same sentences spoken, by whoever; gives the lengths to compare with, the error
            rates that recordings have, and those of recordings as the codec keeps them: the ceiling. Its recordings by
            speakers of the voices' names are what speaker similarity is measured with.
        metrics: of dnsmos and prosody; both when unset, [] for none.
        asr: hears the speech for the error rates: pocketsphinx (US English, offline), none, or a Hugging Face
            speech recogniser by hub id or directory.
        asr_language: for a multilingual Whisper model; it guesses when unset.
        speaker_model: a Hugging Face speaker verification model by hub id or directory, such as
            microsoft/wavlm-base-plus-sv, for the similarity of speakers.
        utmos: the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS, for UTMOS.
        text_lm: a Hugging Face causal language model by hub id or directory, for the perplexity of continuations.
        sampling: how tokens are drawn.
        candidates: so many are spoken of each sentence, and the one taken that the model itself hears best.
        continuation: how recordings are gone on with.
        retrieval_candidates: among so many rows of about one length the text of a speech is looked for, and the speech
            of a text.
        limit: only so many sentences, prompts, rows of each dataset, and pairs of each test, evenly spread over each.
        processes: workers that compute metrics and recognise speech.
        device: for the model and the Hugging Face models; auto takes a GPU where there is one.
        seed: of the sampling.
    """
    from codec.metrics import WAVEFORM_METRICS, SpeakerEmbedder
    from data import open_corpus
    from recipes.commands.common import resolve_device
    from recipes.evaluation.pairs import PairTest, evaluate_pairs, open_pairs
    from recipes.evaluation.scoring import Scorer
    from recipes.evaluation.sentences import References, read_sentences
    from recipes.evaluation.slm_continuations import evaluate_continuations
    from recipes.evaluation.slm_cross_modal import evaluate_cross_modal, open_rows
    from recipes.evaluation.slm_evaluation import SLMEvaluation, evaluate
    from recipes.evaluation.slm_report import write_slm_report
    from recipes.evaluation.slm_voices import VoiceLikeness
    from slm.evaluation.text_lm import TextLM
    from slm.generation.speech_lm import SpeechLM

    if sentences is None and continuations is None and not pairs and not cross_modal:
        raise UserError(
            "nothing to evaluate: give --sentences to be spoken, --continuations to be gone on with, --pairs to be "
            "told apart, --cross_modal rows to be predicted, or several of these"
        )
    if retrieval_candidates < 3:
        raise UserError(f"retrieval_candidates is {retrieval_candidates}: at least 3")
    alone = [metric.name for metric in WAVEFORM_METRICS if not metric.needs_reference]
    if unknown := [name for name in metrics or [] if name not in alone]:
        raise UserError(f"no metric {', '.join(unknown)} of speech by itself; there are {', '.join(alone)}")
    texts = _spread(read_sentences(sentences), limit) if sentences is not None else []
    tests = [open_pairs(Path(path)) for path in pairs or []]
    tests = [PairTest(test.name, _spread(test.pairs, limit)) for test in tests]
    prompts: list[Utterance] = []
    if continuations is not None:
        listing = open_corpus(continuations)
        prompts = _of_split(listing, continuations, continuation.split, "--continuation.split")
    prompts = _spread(prompts, limit)
    where = resolve_device(device)
    spoken = References(open_corpus(references).utterances) if references is not None else None
    language_model = SpeechLM.from_pretrained(model, device=where)
    datasets = [open_rows(path, language_model) for path in cross_modal or []]
    reader = TextLM(text_lm, where) if text_lm is not None and prompts else None
    chosen: list[str | None] = [*(voices or language_model.vocabulary.voices)] or [None]
    speaks = bool(texts or prompts)
    judges, not_given = _utmos(utmos, where) if speaks else ([], {})
    embedder = SpeakerEmbedder(speaker_model, where) if speaker_model is not None and speaks else None
    if speaks and embedder is None:
        not_given["speaker similarity"] = _NO_SPEAKER_MODEL
    elif texts and spoken is None:
        not_given["speaker similarity of sentences"] = "no recordings of the voices: --references"
    if asr == "none" and texts:
        not_given["word and character error rate"] = "no recogniser: --asr none"
    measured = (alone if metrics is None else metrics) if speaks else []
    with Scorer(
        measured, asr if speaks else "none", processes, where, asr_language, judges, not_given
    ) as scorer:
        evaluation = SLMEvaluation(skipped=scorer.skipped)
        if texts:
            likeness = None if embedder is None or spoken is None else VoiceLikeness(embedder, spoken)
            evaluation = evaluate(
                language_model, texts, chosen, spoken, scorer, output, sampling, candidates, seed, likeness
            )
        if prompts:
            went_on = evaluate_continuations(
                language_model, prompts, continuation, scorer, output, sampling, seed, reader, embedder
            )
            evaluation.continuations = went_on
            evaluation.skipped = {**evaluation.skipped, **went_on.skipped}
    evaluation.pairs = [evaluate_pairs(language_model, test) for test in tests]
    for dataset in datasets:
        result = evaluate_cross_modal(language_model, dataset, retrieval_candidates, limit)
        evaluation.cross_modal.append(result)
        evaluation.skipped = {**evaluation.skipped, **result.skipped}
    facts: dict[str, Any] = {
        **provenance(where, _MEASURED_WITH),
        "model": model,
        "codec": language_model.vocabulary.codec.to_dict(),
        "sentences": {"location": str(sentences), "count": len(texts)} if texts else None,
        "tests": pairs,
        "references": references,
        "sampling": {**asdict(sampling), "candidates": candidates, "seed": seed},
        "continuation": None
        if continuations is None
        else {
            **asdict(continuation),
            "temperature": continuation.sampling(sampling).temperature,
            "corpus": continuations,
            "prompts": len(prompts),
        },
        "token_datasets": cross_modal,
        "asr": scorer.asr,
        "speaker_model": speaker_model,
        "utmos": None if utmos is None else utmos.name,
        "text_lm": None if reader is None else reader.name,
    }
    table = write_slm_report(output, evaluation, facts)
    print(table)
    _say_what_is_missing(evaluation.skipped)
    print(f"\ndetails: {output / 'report.md'}")
    return 0


def _of_split(listing: "Corpus", location: str, split: str, flag: str) -> "list[Utterance]":
    utterances = listing.split(split)
    if not utterances:
        there = ", ".join(f"{name} ({count})" for name, count in listing.splits.items())
        raise UserError(f"{location} has no {split} split: it has {there}; choose one with {flag}")
    return utterances


def _spread(items: list[Any], limit: int | None) -> list[Any]:
    """`limit` of the items, evenly over the list: corpora are sorted by speaker or book."""
    if limit is None or limit >= len(items):
        return items
    if limit < 1:
        raise UserError(f"limit is {limit}: it must be at least 1")
    return [items[i * len(items) // limit] for i in range(limit)]
