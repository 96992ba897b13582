"""Command `align`: word times for a corpus's transcripts."""

import sys
from typing import TYPE_CHECKING

from recipes.cli.common import resolve_device
from recipes.cli.data import Format

if TYPE_CHECKING:
    from data import Aligner, FillResult


def align(
    corpus: str,
    output: str,
    aligner: str = "pocketsphinx",
    textgrids: str | None = None,
    format: Format = "auto",
    language: str | None = None,
    min_probability: float = 0.02,
    shards: int | None = None,
    workers: int | None = None,
    max_failures: float = 0.1,
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
        device: "cpu", "cuda", "cuda:1" for a CTC model; "auto" takes a GPU if there is one.
    """
    from codec import UserError
    from data import align_corpus, open_corpus

    if not 0.0 <= max_failures <= 1.0:
        raise UserError(f"--max_failures is {max_failures}: a share from 0 to 1")
    if workers is not None and workers < 0:
        raise UserError(f"--workers is {workers}: 0 (align in this process) or more")
    if not 0.0 <= min_probability < 1.0:
        raise UserError(f"--min_probability is {min_probability}: a probability, less than 1")
    chosen = _aligner(aligner, textgrids, min_probability, device)
    utterances = open_corpus(corpus, format, language=language)
    result = align_corpus(utterances, chosen, output, workers, shards)
    _report(result, output)
    if result.too_many_failures(max_failures):
        print(
            f"codec-slm: more than {max_failures:.1%} of the utterances have no word times; "
            f"{output}/failures.jsonl says why",
            file=sys.stderr,
        )
        return 1
    return 0


def _aligner(name: str, textgrids: str | None, min_probability: float, device: str) -> "Aligner":
    from codec import UserError
    from data.alignment.ctc import CTCAligner
    from data.alignment.pocketsphinx import PocketSphinxAligner
    from data.alignment.textgrid import TextGridAligner
    from recipes.bundled.flite import flite

    if textgrids is not None:
        imported = TextGridAligner(textgrids)
        imported.check()
        return imported
    if name != "pocketsphinx":
        return CTCAligner(name, resolve_device(device), min_probability)
    try:
        flite("word")
    except UserError as error:
        print(f"words that the dictionary lacks will not be placed ({error})")
        return PocketSphinxAligner()
    return PocketSphinxAligner(flite)


def _report(result: "FillResult", output: str) -> None:
    from codec.foundation import rank

    if rank() != 0 and not result.stopped:
        return
    about = result.metadata
    if about is not None:
        failed = f", {about['failures']:,} utterances without word times" if about["failures"] else ""
        lost = f", {about['unplaced']:,} words not placed" if about["unplaced"] else ""
        print(f"{output}: {about['placed']:,} words of {about['utterances']:,} utterances{lost}{failed}")
    elif result.stopped:
        print(f"{output}: stopped with {result.shards_left} shards left; run the same command again to go on")
    else:
        print(f"{output}: {result.shards_left} shards are left, which other processes are making")
