"""Commands that measure how good a codec or a speech language model is: evaluate-codec, evaluate-slm."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from codec.foundation import UserError
from data.config import CorpusFormat, CorpusOptions
from recipes.evaluation.config import ContinuationConfig, Paper
from slm.generation.config import SamplingConfig

_SAMPLING, _CONTINUATION, _READING = SamplingConfig(), ContinuationConfig(), CorpusOptions()

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
    reading: CorpusOptions = _READING,
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
        metrics: of log_mel_l1, multi_resolution_stft, stoi, pesq, voicing, prosody, dnsmos, distillmos; all when unset,
            [] for codes only.
        asr: hears recordings and output for the error rates: pocketsphinx (US English, offline), none,
            faster-whisper:DIRECTORY (Whisper in CTranslate2's form), or a Hugging Face speech recogniser by hub id or
            directory.
        asr_language: for a multilingual Whisper model; it guesses when unset.
        speaker_model: for the similarity of speakers: resemblyzer, speechbrain/spkrec-ecapa-voxceleb or a directory
            with its embedding_model.ckpt, or a Hugging Face speaker verification model by hub id or directory.
        utmos: the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS, for UTMOS.
        stability: of so many recordings, changed versions are coded too (shifted, turned down, made noisy,
            resampled), to count the codes that stay; 0 for none.
        probes: of so many utterances of the training split, what each quantizer's codes say of the characters
            being spoken (where words have times) and of the speaker (where there are several); 0 for none.
        alignment: word times for the probes that codec-slm align made, where the corpus has none of its own.
        limit: only so many utterances, evenly spread over the split.
        processes: workers that compute metrics and recognise speech.
        reading: what to take from the corpus.
        device: for the codecs and the Hugging Face models; auto takes a GPU where there is one.
    """
    from codec import CodecInfo
    from data import open_corpus, with_alignment
    from recipes.evaluation.codec_evaluation import evaluate
    from recipes.evaluation.codec_report import write_codec_report
    from recipes.evaluation.inputs import (
        MEASURED_WITH,
        NetworkJudges,
        named_codecs,
        of_split,
        say_what_is_missing,
        spread,
        with_prefixes,
    )
    from recipes.evaluation.probes import probe
    from recipes.evaluation.scoring import ERROR_RATES, Scorer
    from recipes.loading import load_codec_on, resolve_device
    from recipes.reporting.provenance import provenance

    if stability < 0 or probes < 0:
        raise UserError(f"stability is {stability}, probes {probes}: a number of recordings, or 0 for none")
    where = resolve_device(device)
    listing = open_corpus(corpus, format, options=reading)
    utterances = spread(of_split(listing, corpus, split, "--split"), limit)
    whole = named_codecs({location: load_codec_on(location, where) for location in codec}, len(codec))
    codecs, locations = with_prefixes(whole, codec, quantizers or [], where)
    probed = []
    if probes:
        if alignment is not None:
            listing = with_alignment(listing, alignment)
        probed = probe(whole, spread(listing.split("train"), probes), gain, where)
    networks = NetworkJudges.open(speaker_model, utmos, where)
    not_given = networks.not_given | ({ERROR_RATES: "no recogniser: --asr none"} if asr == "none" else {})
    with Scorer(metrics, asr, processes, where, asr_language, networks.comparing, not_given) as scorer:
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


def reproduce(
    paper: Paper,
    checkpoint: str,
    output: Path,
    libritts: str | None = None,
    librispeech: str | None = None,
    seed_tts: str | None = None,
    common_voice: str | None = None,
    asr: str = "none",
    speaker_model: str | None = None,
    utmos: Path | None = None,
    limit: int | None = None,
    processes: int = 2,
    reading: CorpusOptions = _READING,
    device: str = "auto",
) -> int:
    """A paper's own table, filled by a checkpoint: the paper's rows, marked as such, beside ours.

    Each test set is measured as evaluate-codec does, and what that leaves is in a folder of its own in the output;
    table.md is the table. Columns that nothing here can fill hold the paper's numbers alone.

    Args:
        paper: hh-codec (LibriTTS, Seed-TTS-eval) or hybrid-codec (LibriSpeech, Seed-TTS-eval, Common Voice).
        checkpoint: the codec: a bundled one's name, a directory, a training run, or a hub id.
        output: directory for the results.
        libritts: where LibriTTS is, with test-clean and test-other.
        librispeech: where LibriSpeech is, with test-clean.
        seed_tts: where Seed-TTS-eval is, with en/meta.lst.
        common_voice: where Common Voice is, with fr.
        asr: as for evaluate-codec; without one there are no word error rates.
        speaker_model: as for evaluate-codec; HybridCodec's paper takes ECAPA-TDNN (speechbrain/spkrec-ecapa-voxceleb).
        utmos: as for evaluate-codec.
        limit: only so many utterances of each test set, evenly spread.
        processes: workers that compute metrics and recognise speech.
        reading: what to take from the corpora.
        device: for the codec and the models; auto takes a GPU where there is one.
    """
    from codec.foundation import write_text
    from recipes.evaluation.papers import PAPERS, folder_of, paper_table

    table = PAPERS[paper]
    given = {
        "libritts": libritts,
        "librispeech": librispeech,
        "seed_tts": seed_tts,
        "common_voice": common_voice,
    }
    wanted = {test.corpus for test in table.tests}
    if not any(given[name] for name in wanted):
        raise UserError(f"no corpus to measure on: give {', '.join(f'--{name}' for name in sorted(wanted))}")
    if unused := [name for name in given if given[name] and name not in wanted]:
        raise UserError(f"the table of {paper} has no --{unused[0]}: it has {', '.join(sorted(wanted))}")
    folders = {
        test.name: folder_of(corpus, test.folder)
        for test in table.tests
        if (corpus := given[test.corpus]) is not None
    }
    if not any(folders.values()):
        names = ", ".join(dict.fromkeys(test.folder for test in table.tests if test.name in folders))
        raise UserError(f"none of the test sets is there: looked for the folders {names}")
    results = {}
    for test in table.tests:
        if (folder := folders.get(test.name)) is None:
            if test.name in folders:
                print(f"not measured: {test.name}: no folder {test.folder} in {given[test.corpus]}")
            continue
        results[test.name] = output / f"{test.corpus}-{test.folder}"
        evaluate_codec(
            [checkpoint],
            str(folder),
            results[test.name],
            split="test",
            quantizers=list(table.prefixes),
            metrics=list(table.metrics),
            asr=asr,
            speaker_model=speaker_model,
            utmos=utmos,
            stability=0,
            limit=limit,
            processes=processes,
            reading=reading,
            device=device,
        )
    page = f"{table.source}\n\n{paper_table(table, results)}\n"
    write_text(output / "table.md", page)
    print(f"\n{page}")
    return 0


def evaluate_slm(
    output: Path,
    sentences: Path | None = None,
    pairs: list[str] | None = None,
    continuations: str | None = None,
    cross_modal: list[str] | None = None,
    model: str = "slm-tiny",
    voices: list[str] | None = None,
    references: str | None = None,
    alignment: Path | None = None,
    format: CorpusFormat = "auto",
    gain: float = 1.0,
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
    reading: CorpusOptions = _READING,
    device: str = "auto",
    seed: int = 0,
) -> int:
    """How well a speech language model speaks, goes on, tells right speech from wrong, and connects speech with text.

    Sentences are read aloud and heard by a recogniser; recordings are gone on with; of pairs of recordings the likelier
    one should be the right one; text should make its speech likelier, and speech its text. Recordings, and recordings
    through the codec, stand beside what the model says. Leaves results.json, report.md, spectrogram.png, audio/,
    continuations/, and what was measured of every sentence, continuation, pair and row in Parquet in the output; all
    but the audio is written anew after each of these parts.

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
        alignment: word times of the references that codec-slm align made, where they have none of their own; the bits
            of a model that speaks in aligned documents take them.
        format: the layout of the corpora of continuations and references.
        gain: factor on every recording of continuations, references and pairs before anything else; for those recorded
            too low.
        metrics: of dnsmos, distillmos and prosody; all when unset, [] for none.
        asr: hears the speech for the error rates: pocketsphinx (US English, offline), none, faster-whisper:DIRECTORY
            (Whisper in CTranslate2's form), or a Hugging Face speech recogniser by hub id or directory.
        asr_language: for a multilingual Whisper model; it guesses when unset.
        speaker_model: for the similarity of speakers: resemblyzer, speechbrain/spkrec-ecapa-voxceleb or a directory
            with its embedding_model.ckpt, or a Hugging Face speaker verification model by hub id or directory.
        utmos: the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS, for UTMOS.
        text_lm: a Hugging Face causal language model by hub id or directory, for the perplexity of continuations.
        sampling: how tokens are drawn.
        candidates: so many are spoken of each sentence, and the one taken that the model itself hears best.
        continuation: how recordings are gone on with.
        retrieval_candidates: among so many rows of about one length the text of a speech is looked for, and the speech
            of a text.
        limit: only so many sentences, prompts, rows of each dataset, and pairs of each test, evenly spread over each.
        processes: workers that compute metrics and recognise speech.
        reading: what to take from the corpora of continuations and references.
        device: for the model and the Hugging Face models; auto takes a GPU where there is one.
        seed: of the sampling.
    """
    from data import open_corpus, with_alignment
    from recipes.evaluation.continuations import evaluate_continuations, fitting_prompts
    from recipes.evaluation.inputs import (
        MEASURED_WITH,
        NetworkJudges,
        metrics_of_speech_alone,
        of_split,
        say_what_is_missing,
        spread,
    )
    from recipes.evaluation.scoring import ERROR_RATES, Scorer
    from recipes.evaluation.sentences import References, VoiceLikeness, read_sentences
    from recipes.evaluation.slm_evaluation import Part, SLMEvaluation, check_voices, evaluate, measure_parts
    from recipes.evaluation.slm_report import write_slm_report
    from recipes.loading import resolve_device
    from recipes.reporting.provenance import distinct_names, provenance
    from slm.evaluation.cross_modal import evaluate_cross_modal, open_rows, unfamiliar_views
    from slm.evaluation.pairs import PairTest, check_pairs, evaluate_pairs, open_pairs
    from slm.evaluation.text_lm import TextLM
    from slm.generation.speech_lm import SpeechLM

    if sentences is None and continuations is None and not pairs and not cross_modal:
        raise UserError(
            "nothing to evaluate: give --sentences to be spoken, --continuations to be gone on with, --pairs to be "
            "told apart, --cross_modal rows to be predicted, or several of these"
        )
    for flag, given, needed, there in (
        ("--text_lm", text_lm, "--continuations", continuations),
        ("--references", references, "--sentences", sentences),
        ("--alignment", alignment, "--references", references),
    ):
        if given is not None and there is None:
            raise UserError(f"{flag} does nothing without {needed}: give both or none")
    if retrieval_candidates < 3:
        raise UserError(f"retrieval_candidates is {retrieval_candidates}: at least 3")
    measured = metrics_of_speech_alone(metrics)

    # All that is given is opened before anything is measured: hours later is too late to learn of a wrong path.
    texts = spread(read_sentences(sentences), limit) if sentences is not None else []
    names = distinct_names([Path(path) for path in pairs or []])
    tests = [PairTest(n, open_pairs(Path(p)).pairs) for n, p in zip(names, pairs or [], strict=True)]
    tests = [PairTest(test.name, spread(test.pairs, limit)) for test in tests]
    prompts = []
    too_short: dict[str, str] = {}
    if continuations is not None:
        listing = open_corpus(continuations, format, options=reading)
        held_out = of_split(listing, continuations, continuation.split, "--continuation.split")
        fitting = fitting_prompts(held_out, continuation)
        prompts, too_short = spread(fitting.utterances, limit), fitting.failures
    where = resolve_device(device)
    spoken = None
    if references is not None:
        listing = open_corpus(references, format, options=reading)
        spoken = References((listing if alignment is None else with_alignment(listing, alignment)).utterances)
    language_model = SpeechLM.from_pretrained(model, device=where)
    chosen: list[str | None] = [*(voices or language_model.vocabulary.voices)] or [None]
    check_voices(language_model, chosen)
    for test in tests:
        check_pairs(language_model, test)
    names = distinct_names([Path(path) for path in cross_modal or []])
    datasets = {
        name: open_rows(path, language_model) for name, path in zip(names, cross_modal or [], strict=True)
    }
    reader = TextLM(text_lm, where) if text_lm is not None else None
    speaks = bool(texts or prompts)
    networks = NetworkJudges.open(speaker_model, utmos, where) if speaks else NetworkJudges([], None, {})
    embedder, not_given = networks.embedder, networks.not_given
    if embedder is not None and texts and spoken is None:
        not_given["speaker similarity of sentences"] = "no recordings of the voices: --references"
    if asr == "none" and texts:
        not_given[ERROR_RATES] = "no recogniser: --asr none"
    output.mkdir(parents=True, exist_ok=True)

    def read_aloud(so_far: SLMEvaluation) -> SLMEvaluation:
        likeness = None if embedder is None or spoken is None else VoiceLikeness(embedder, spoken, gain)
        result = evaluate(
            language_model, texts, chosen, spoken, scorer, output, sampling, candidates, seed, likeness, gain
        )
        return replace(result, not_trained_on=so_far.not_trained_on)

    def go_on(so_far: SLMEvaluation) -> SLMEvaluation:
        result = evaluate_continuations(
            language_model, prompts, continuation, scorer, output, sampling, seed, reader, embedder, gain
        )
        result = replace(result, failures={**too_short, **result.failures})
        return replace(so_far, continuations=result, skipped={**so_far.skipped, **result.skipped})

    def tell_apart(test: PairTest, so_far: SLMEvaluation) -> SLMEvaluation:
        return replace(so_far, pairs=[*so_far.pairs, evaluate_pairs(language_model, test, gain)])

    def connect(name: str, so_far: SLMEvaluation) -> SLMEvaluation:
        result = evaluate_cross_modal(language_model, datasets[name], retrieval_candidates, limit, name)
        skipped = {**so_far.skipped, **result.skipped}
        return replace(so_far, cross_modal=[*so_far.cross_modal, result], skipped=skipped)

    parts: dict[str, Part] = {}
    if texts:
        parts["sentences"] = read_aloud
    if prompts:
        parts["continuations"] = go_on
    parts |= {f"pairs of {test.name}": partial(tell_apart, test) for test in tests}
    parts |= {f"text and speech of {name}": partial(connect, name) for name in datasets}
    table = ""
    measured, heard_by = (measured, asr) if speaks else ([], "none")
    with Scorer(measured, heard_by, processes, where, asr_language, networks.alone, not_given) as scorer:
        facts: dict[str, Any] = {
            **provenance(where, MEASURED_WITH),
            "model": model,
            "codec": language_model.vocabulary.codec.to_dict(),
            "sentences": {"location": str(sentences), "count": len(texts)} if texts else None,
            "tests": pairs,
            "references": references,
            "alignment": None if alignment is None else str(alignment),
            "gain": gain,
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
        # of text alone the rows of token datasets say it themselves
        strange = [
            view for view in unfamiliar_views(language_model) if view == "speech alone" and (prompts or tests)
        ]
        nothing = SLMEvaluation(skipped=scorer.skipped, not_trained_on=[*strange])
        for evaluation in measure_parts(nothing, parts):
            table = write_slm_report(output, evaluation, facts)
    print(table)
    say_what_is_missing(evaluation.skipped)
    for what, count in evaluation.left_out.items():
        print(f"left out: {count} {what}; the report says why")
    print(f"\ndetails: {output / 'report.md'}")
    return 0
