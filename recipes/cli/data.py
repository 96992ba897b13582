"""Commands on corpora and token datasets: scan, tokenize, combine, align, inspect, train-tokenizer."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from codec.foundation import UserError, duration, rank
from data.config import CorpusFormat, CorpusOptions, CorpusSource
from slm.documents.config import DocumentConfig

_DOCUMENTS, _READING = DocumentConfig(), CorpusOptions()
_PAUSE_SECONDS = 0.3  # between two stretches of a document's speech


def tokenize(
    corpus: str,
    output: str,
    codec: str = "hh-codec-tiny",
    format: CorpusFormat = "auto",
    speaker: str | None = None,
    language: str | None = None,
    alignment: str | None = None,
    shards: int | None = None,
    speeds: list[float] = [1.0],  # noqa: B006  (never changed; jsonargparse shows it in --help)
    shifts: int = 1,
    batch_seconds: float = 60.0,
    long_seconds: float = 120.0,
    max_quantizers: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    gain: float = 1.0,
    workers: int | None = None,
    max_failures: float = 0.01,
    source: str | None = None,
    licence: str | None = None,
    reading: CorpusOptions = _READING,
    device: str = "auto",
) -> int:
    """Encode a corpus into a token dataset: Parquet shards that any reader opens.

    Kill it and start it again, with any number of processes: it goes on where it was, and the files are the same.

    Args:
        corpus: a directory (LJSpeech, LibriSpeech, LibriTTS, VCTK, Emilia or Seed-TTS-eval layout, audio files), a
            .jsonl or .csv manifest, or a Hugging Face audio dataset on disk or, with --format huggingface, on the hub.
        output: directory of the token dataset.
        codec: name of a bundled codec, a model directory, or a hub id (kyutai/mimi:8 for its first 8 quantizers).
        format: what kind of corpus it is; "auto" looks.
        speaker: who speaks, for corpora that do not say.
        language: what is spoken, for corpora that do not say; a code such as "en".
        alignment: a directory of word times that `codec-slm align` made for this corpus.
        shards: files of the training split at most; by default one a quarter hour, up to 1,024.
        speeds: encode each training recording at each of these speeds (tempo and pitch).
        shifts: encode each training recording with so many sub-frame shifts.
        batch_seconds: audio in a batch, padding included.
        long_seconds: recordings longer than this are encoded block by block, in little memory.
        max_quantizers: keep the codes of the first so many quantizers only, where the codec has several.
        precision: of the encoder; bfloat16 is faster on a GPU and changes some codes.
        gain: factor on every recording, for corpora far from the level that the codec was trained at (peaks of 0.25 to
            0.7 for the bundled one).
        workers: processes that read audio ahead of the encoder; by default by the number of cores, and none on a CPU,
            whose threads read for themselves.
        max_failures: the share of recordings that may be broken; above it the exit status is 1.
        source: where the recordings come from, for the dataset's card.
        licence: of the recordings, as Hugging Face spells it ("cc0-1.0"), for the dataset's card.
        reading: what to take from the corpus.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from data import Corpus, TokenizeOptions, tokenize_corpus
    from data.scan import listed_below
    from data.tokenization import left_out, lost_texts
    from recipes.loading import load_codec_on

    _check(max_failures, workers)
    options = TokenizeOptions(
        shards, tuple(speeds), shifts, batch_seconds, long_seconds, precision, gain, source, licence
    )
    asked = CorpusSource(corpus, format, speaker, language, reading)
    model = load_codec_on(codec, device, max_quantizers)
    first = rank() == 0
    known: list[Corpus] = []

    def listed(folder: Path) -> Corpus:
        known.append(listed_below(folder, asked, alignment))
        if first:
            _warn(lost_texts(known[0]))
        return known[0]

    result = tokenize_corpus(model, listed, output, options, workers, print if first else None)

    status = _status(result, output, max_failures, _counted, "recordings failed")
    if first and result.whole and (told := left_out(known[0], Path(output, "failures.jsonl"))):
        print(told)
    return status


def scan(
    corpus: str,
    output: str,
    format: CorpusFormat = "auto",
    speaker: str | None = None,
    language: str | None = None,
    reading: CorpusOptions = _READING,
) -> None:
    """List a corpus and the lengths of its recordings in Parquet shards, which all commands then read as a corpus.

    `tokenize` does the same by itself. Do it before for a large corpus that is tokenized more than once, or that wants
    more processes for its headers than there are GPUs. Kill it and start it again, with any number of processes: no
    header is read twice but those of the shards at hand.

    Args:
        corpus: as for tokenize.
        output: directory of the scanned corpus; `codec-slm tokenize OUTPUT` takes it.
        format: what kind of corpus it is; "auto" looks.
        speaker: who speaks, for corpora that do not say.
        language: what is spoken, for corpora that do not say; a code such as "en".
        reading: what to take from the corpus.
    """
    from data.scan import scan_corpus
    from data.tokenization import left_out, lost_texts, understood

    scanned = scan_corpus(CorpusSource(corpus, format, speaker, language, reading), output)
    if rank() == 0:
        _warn(lost_texts(scanned))
        print(understood(scanned, scanned.manifest.seconds()))
        if told := left_out(scanned, Path(output, "failures.jsonl")):
            print(told)


def combine(datasets: list[str], output: str, where: str | None = None, shards: int | None = None) -> int:
    """Put token datasets together into one, with the rows that are wanted, in shards of even length.

    Takes what `tokenize` and `encode` write, and what `datasets`, pandas, DuckDB or polars made of it. Kill it and
    start it again, with any number of processes, as `tokenize`.

    Args:
        datasets: token datasets of one codec, or Parquet files.
        output: directory of the token dataset.
        where: which rows, over split, id, text, speaker, language and seconds, as in
            "seconds < 20 and speaker == 'anna'" or "text.str.len() > 3" (an expression of `pandas.DataFrame.query`).
        shards: files of a split at most; by default one a quarter hour, up to 1,024.
    """
    from data.combine import combine_datasets

    if shards is not None and shards < 1:
        raise UserError(f"--shards is {shards}: expected at least 1")
    result = combine_datasets(datasets, output, where, shards)
    return _status(result, output, 1.0, _counted, "rows failed")


def align(
    corpus: str,
    output: str,
    aligner: str = "pocketsphinx",
    textgrids: str | None = None,
    format: CorpusFormat = "auto",
    language: str | None = None,
    min_probability: float = 0.02,
    shards: int | None = None,
    workers: int | None = None,
    max_failures: float = 0.1,
    reading: CorpusOptions = _READING,
    device: str = "auto",
) -> int:
    """Find when each word of a corpus's transcripts is spoken, for `codec-slm tokenize --alignment OUTPUT`.

    Kill it and start it again, with any number of processes: it goes on where it was. Words that cannot be placed get
    no times, and are counted; utterances without any are listed in OUTPUT/failures.jsonl.

    Args:
        corpus: a corpus with transcripts, as `codec-slm tokenize` reads it.
        output: directory of the word times.
        aligner: "pocketsphinx" (English, offline), or the directory or hub id of a Hugging Face CTC model of characters
            (MahmoudAshraf/mms-300m-1130-forced-aligner knows 1,100 languages in Latin letters).
        textgrids: take the times from TextGrid files (Montreal Forced Aligner) below this directory instead.
        format: what kind of corpus it is; "auto" looks.
        language: what is spoken, for corpora that do not say; a code such as "en".
        min_probability: of a CTC model: words that it hears with a lower probability a letter are not placed.
        shards: files of word times; by default one for 512 utterances, up to 1,024.
        workers: processes that align (of a CTC model: threads that read audio); by default one a core.
        max_failures: the share of utterances that may have no words; above it the exit status is 1.
        reading: what to take from the corpus.
        device: "cpu", "cuda", "cuda:1" for a CTC model; "auto" takes a GPU if there is one.
    """
    from data import align_corpus
    from data.alignment.ctc import CTCAligner
    from data.alignment.pocketsphinx import PocketSphinxAligner
    from data.alignment.textgrid import TextGridAligner
    from data.scan import listed_below
    from recipes.bundled.flite import flite
    from recipes.loading import resolve_device

    _check(max_failures, workers)
    if not 0.0 <= min_probability < 1.0:
        raise UserError(f"--min_probability is {min_probability}: a probability, less than 1")
    chosen: TextGridAligner | CTCAligner | PocketSphinxAligner
    if textgrids is not None:
        chosen = TextGridAligner(textgrids)
        chosen.check()
    elif aligner != "pocketsphinx":
        chosen = CTCAligner(aligner, resolve_device(device), min_probability)
    else:
        try:
            flite("word")
            chosen = PocketSphinxAligner(flite)
        except UserError as error:
            print(f"words that the dictionary lacks will not be placed ({error})")
            chosen = PocketSphinxAligner()
    asked = CorpusSource(corpus, format, language=language, options=reading)
    result = align_corpus(partial(listed_below, source=asked), chosen, output, workers, shards)

    def summary(made: dict[str, Any]) -> str:
        failed = f", {made['failures']:,} utterances without word times" if made["failures"] else ""
        lost = f", {made['unplaced']:,} words not placed" if made["unplaced"] else ""
        return f"{made['placed']:,} words of {made['utterances']:,} utterances{lost}{failed}"

    return _status(result, output, max_failures, summary, "utterances have no word times")


def inspect(
    dataset: str,
    row: int = 0,
    split: str = "train",
    format: str | None = None,
    audio: Path | None = None,
    codec: str | None = None,
    text_model: str | None = None,
    documents: DocumentConfig = _DOCUMENTS,
    seed: int = 0,
    epoch: int = 0,
    device: str = "auto",
) -> None:
    """Show a row of a token dataset as a person reads it, and decode it to audio.

    With a format, show also the training document that the row becomes: which words are text, which are speech, and
    which frames these are. The audio is then that of the document: its stretches of speech with pauses between them.

    Args:
        dataset: a token dataset, or a Parquet file that `encode` wrote.
        row: its number, from 0.
        split: which split of a token dataset.
        format: a document format: speech, text, tts, asr, aligned or interleaved.
        audio: write the row's sound to this file (.wav or .flac).
        codec: name of a bundled codec, a model directory, or a hub id; the one that made the codes. Unset: the bundled
            codec of the name that is in the dataset.
        text_model: with a format, the text tokenizer of a training run; by default that of the bundled model.
        documents: with a format, what else decides a document.
        seed: with a format, the seed of a training run.
        epoch: with a format, the epoch of a training run, from 0.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from data import TokenDataset
    from data.token_dataset import describe_row
    from recipes.loading import decode_row, decode_streams, load_codec_of
    from slm import Vocabulary, find_slm
    from slm.documents.documents import Documents
    from slm.documents.inspection import describe_document

    opened = TokenDataset.open(dataset, split)
    if not 0 <= row < len(opened):
        raise UserError(f"{dataset}: has rows 0 to {len(opened) - 1} in {opened.split}, not {row}")
    print(describe_row(opened, row))
    speech = None
    if format is not None:
        if text_model is not None:
            vocabulary = Vocabulary.build(text_model, opened.info)
        else:
            vocabulary = Vocabulary.from_pretrained(find_slm("slm-tiny")).for_codec(opened.info)
        config = replace(documents, formats={format: 1.0}, prompt_probability=0.0).without_noise()
        try:
            described = describe_document(Documents([opened], vocabulary, config, seed), row, epoch)
        except ValueError as error:
            raise UserError(f"{opened.name}: row {row} holds nothing to make a document of") from error
        print(described.text)
        speech = described.speech
    if audio is None:
        return
    if speech == []:
        raise UserError(f"{audio}: not written, the document has no speech; try another seed or epoch")
    model = load_codec_of(opened, codec, device)
    if speech is None:
        decode_row(model, opened, row, audio)
    else:
        decode_streams(model, speech, opened.info, audio, _PAUSE_SECONDS, opened.voice(row))
    print(f"audio     {audio}")


def train_tokenizer(
    corpus: str,
    output: str,
    kind: Literal["char", "bpe", "unigram"] = "char",
    vocab_size: int | None = None,
    format: CorpusFormat = "auto",
    reading: CorpusOptions = _READING,
) -> None:
    """Train a SentencePiece model, which gives text back exactly, on a corpus's training texts.

    Args:
        corpus: a corpus of recordings with texts, a token dataset, or a .txt file with a text a line.
        output: the SentencePiece file, such as text.model.
        kind: "char" for small corpora; "bpe" or "unigram" pieces for large ones.
        vocab_size: pieces in all, 257 of them bytes and <unk>; a char model takes all characters unless it is given.
        format: what kind of corpus it is; "auto" looks.
        reading: what to take from the corpus; of a .txt file its encoding.
    """
    from data import TokenDataset, open_corpus, train_text_tokenizer
    from data.corpora.reading import Reading
    from data.token_files import holds_tokens

    path = Path(corpus)
    texts: list[str | None]
    if path.suffix == ".txt" and path.is_file():
        texts = [line.rstrip("\r\n") for _, line in Reading(options=reading).lines(path)]
    elif holds_tokens(path):
        dataset = TokenDataset.open(path)
        texts = [dataset.text(row) for row in range(len(dataset))]
    else:
        texts = [utterance.text for utterance in open_corpus(corpus, format, options=reading).split("train")]
    spoken = [text for text in texts if text]
    if not spoken:
        raise UserError(f"{corpus}: has no texts in its training split")
    model = train_text_tokenizer(spoken, output, vocab_size, kind)
    print(f"{model}: {kind} model of {len(spoken):,} texts")


def _warn(warning: str | None) -> None:
    if warning is not None:
        print(f"codec-slm: WARNING: {warning}", file=sys.stderr)


def _check(max_failures: float, workers: int | None) -> None:
    if not 0.0 <= max_failures <= 1.0:
        raise UserError(f"--max_failures is {max_failures}: a share from 0 to 1")
    if workers is not None and workers < 0:
        raise UserError(f"--workers is {workers}: 0 (all in this process) or more")


def _counted(made: dict[str, Any]) -> str:
    splits = ", ".join(f"{counts['rows']:,} {name}" for name, counts in made["splits"].items())
    failed = f", {made['failures']:,} failed" if made["failures"] else ""
    return f"{made['rows']:,} rows ({splits}), {duration(made['seconds'])} of audio{failed}"


def _status(
    result: Any,
    output: str,
    max_failures: float,
    summary: Callable[[dict[str, Any]], str],
    failed: str,
) -> int:
    """Say what became of a directory of shards; returns the exit status."""
    if rank() == 0 or result.stopped:
        if result.metadata is not None:
            print(f"{output}: {summary(result.metadata)}")
        elif result.stopped:
            left = result.shards_left
            print(f"{output}: stopped with {left} shards left; run the same command again to go on")
        else:
            print(f"{output}: {result.shards_left} shards are left, which other processes are making")
    if result.too_many_failures(max_failures):
        message = f"more than {max_failures:.1%} of the {failed}; {output}/failures.jsonl says why"
        print(f"codec-slm: {message}", file=sys.stderr)
        return 1
    return 0
