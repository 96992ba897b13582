"""From a corpus to word times and on to a token dataset: whole after a kill, failures counted, joined by id."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from torch import Tensor

from codec.foundation import UserError
from data import (
    Corpus,
    TokenDataset,
    Utterance,
    Word,
    align_corpus,
    open_corpus,
    tokenize_corpus,
    with_alignment,
)
from data.alignment import Alignment, AlignmentError
from data.token_dataset import describe_row
from recipes.cli.main import main
from tests.data.fake_codec import FakeCodec


@dataclass
class EvenAligner:
    """Words share the recording evenly; the one called "ü." is never placed; utt005 cannot be aligned."""

    in_processes: bool = True
    name: str = "even"
    sampling_rate: int = 24_000
    rejects_low_scores: bool = True
    stop_after: int | None = None  # utterances
    low: tuple[str, ...] = ()  # ids with a score like no other
    seen: list[str] = field(default_factory=list)

    def align(self, utterance: Utterance, blocks: Iterator[Tensor]) -> Alignment:
        self.seen.append(utterance.id)
        if len(self.seen) == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        if utterance.id == "utt005":
            raise AlignmentError("nobody knows")
        words = (utterance.text or "").split()
        seconds = sum(map(len, blocks)) / self.sampling_rate
        each = seconds / len(words)
        times = [Word(word, number * each, (number + 1) * each) for number, word in enumerate(words)]
        score = -9.0 if utterance.id in self.low else -1.0 - int(utterance.id[-1]) / 100
        return Alignment(tuple(w if w.word != "ü." else Word("ü.", None, None) for w in times), score)


@pytest.fixture
def corpus(corpus_path: Path) -> Corpus:
    """28 utterances: one without a recording, one without a text."""
    (corpus_path / "wavs" / "utt007.flac").write_bytes(b"no audio")
    found = open_corpus(corpus_path)
    utterances = [replace(u, text=None) if u.id == "utt008" else u for u in found.utterances]
    return replace(found, utterances=utterances)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_words_reach_the_token_dataset(corpus: Corpus, tmp_path: Path) -> None:
    result = align_corpus(corpus, EvenAligner(), tmp_path / "times", workers=1, shards=3)
    assert result.whole and result.metadata is not None
    about = result.metadata
    assert (about["utterances"], about["failures"], about["shards"]) == (28, 3, 3)
    assert (about["words"], about["placed"], about["unplaced"], about["unspoken"]) == (75, 50, 25, 0)
    assert result.too_many_failures(0.1) and not result.too_many_failures(0.11)
    align_corpus(corpus, EvenAligner(), tmp_path / "alone", workers=0, shards=3)
    assert files(tmp_path / "alone") == files(tmp_path / "times")
    lines = [json.loads(line) for line in (tmp_path / "times" / "failures.jsonl").read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in lines if line["id"] != "utt007"} == {
        "utt005": "nobody knows",
        "utt008": "no transcript",
    }
    aligned = with_alignment(corpus, tmp_path / "times")
    assert aligned.content_hash() != corpus.content_hash()
    tokenize_corpus(FakeCodec("a"), aligned, tmp_path / "tokens", workers=0)
    dataset = TokenDataset.open(tmp_path / "tokens")
    rows = {dataset.id(row): row for row in range(len(dataset))}
    assert dataset.words(rows["utt005"]) is None
    words = dataset.words(rows["utt003"])
    seconds = dataset.seconds(rows["utt003"])
    assert words is not None and words[0] == Word("Number", 0.0, pytest.approx(seconds / 3, abs=1e-4))
    assert words[2] == Word("ü.", None, None) and not words[2].placed
    assert " ".join(word.word for word in words) == dataset.text(rows["utt003"])
    shown = describe_row(dataset, rows["utt003"])
    assert "words     3, 1 without times" in shown and "- unplaced -  ü." in shown and "frames 0 to" in shown


@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_and_started_again_it_ends_the_same(corpus: Corpus, tmp_path: Path, workers: int) -> None:
    align_corpus(corpus, EvenAligner(), tmp_path / "whole", workers=0, shards=5)
    first = EvenAligner(in_processes=False, stop_after=14)
    result = align_corpus(corpus, first, tmp_path / "broken", workers, shards=5)
    assert result.stopped and not result.whole and 0 < result.shards_left < 5
    with pytest.raises(UserError, match="no whole alignment"):
        with_alignment(corpus, tmp_path / "broken")
    again = EvenAligner(in_processes=False)
    assert align_corpus(corpus, again, tmp_path / "broken", workers, shards=5).whole
    assert 0 < len(again.seen) < 26  # of the shards that were left alone
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    idle = EvenAligner(in_processes=False)
    assert align_corpus(corpus, idle, tmp_path / "broken", workers, shards=5).whole and not idle.seen


def test_two_processes_share_the_shards(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = EvenAligner(in_processes=False)
    align_corpus(corpus, aligner, tmp_path / "one", workers=0, shards=4)
    seen = []
    for rank in ("0", "1"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        part = EvenAligner(in_processes=False)
        result = align_corpus(corpus, part, tmp_path / "two", workers=0, shards=4)
        assert (result.whole, result.shards_left) == ((False, 2) if rank == "0" else (True, 0))
        seen.append(part.seen)
    assert sorted(seen[0] + seen[1]) == sorted(aligner.seen) and not set(seen[0]) & set(seen[1])
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_what_does_not_belong_together_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    align_corpus(corpus, EvenAligner(), tmp_path / "times", workers=0)
    with pytest.raises(UserError, match=r"begun with another aligner \(there even, now odd\)"):
        align_corpus(corpus, EvenAligner(name="odd"), tmp_path / "times", workers=0)
    changed = [replace(u, text="Number one, ü.") if u.id == "utt001" else u for u in corpus.utterances]
    with pytest.raises(UserError, match="has other words for utt001 than its transcript"):
        with_alignment(replace(corpus, utterances=changed), tmp_path / "times")
    with pytest.raises(UserError, match=r"knows no utterance of .*: it is the alignment of another corpus"):
        with_alignment(replace(corpus, utterances=[Utterance("x", "x.wav", "x")]), tmp_path / "times")
    before = files(tmp_path / "times")
    (tmp_path / "times" / "alignment-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="1 shards are missing"):
        with_alignment(corpus, tmp_path / "times")
    assert align_corpus(corpus, EvenAligner(), tmp_path / "times", workers=0).whole
    assert files(tmp_path / "times") == before
    tokenize_corpus(FakeCodec("a"), corpus, tmp_path / "tokens", workers=0)
    with pytest.raises(UserError, match="not the metadata of a word alignment"):
        with_alignment(corpus, tmp_path / "tokens")
    with pytest.raises(UserError):
        align_corpus(corpus, EvenAligner(), tmp_path / "tokens", workers=0)


def test_an_utterance_whose_score_falls_out_of_the_corpus_has_no_words(
    corpus: Corpus, tmp_path: Path
) -> None:
    for rejects in (True, False):
        aligner = EvenAligner(low=("utt002",), rejects_low_scores=rejects)
        result = align_corpus(corpus, aligner, tmp_path / str(rejects), workers=0)
        words = {u.id: u.words for u in with_alignment(corpus, tmp_path / str(rejects)).utterances}
        assert (words["utt002"] is None) == rejects and words["utt001"] is not None
        assert result.metadata is not None and result.metadata["failures"] == 3 + rejects


def test_the_commands(
    corpus_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`align` from TextGrid files, `tokenize --alignment`, `inspect`."""
    monkeypatch.setattr(
        "recipes.loading.load_codec", lambda name, device, num_quantizers=None: FakeCodec(name), raising=False
    )
    grids = tmp_path / "grids"
    grids.mkdir()
    for number in range(27):  # utt027 has none
        name = f"utt{number:03d}"
        labels = ["", "number", name, "<unk>" if number % 2 else "ü"]
        intervals = "".join(f'{n / 100}\n{(n + 1) / 100}\n"{label}"\n' for n, label in enumerate(labels))
        (grids / f"{name}.TextGrid").write_text(
            f'File type = "ooTextFile"\n"TextGrid"\n0\n1\n<exists>\n1\n"IntervalTier"\n"words"\n0\n1\n4\n{intervals}'
        )
    times, tokens = str(tmp_path / "times"), str(tmp_path / "tokens")
    command = ["align", str(corpus_path), "--output", times, "--textgrids", str(grids), "--workers", "0"]
    assert main([*command, "--max_failures", "0.01"]) == 1
    told = capsys.readouterr()
    assert "81 words of 28 utterances, 1 utterances without word times" in told.out
    assert "more than 1.0% of the utterances have no word times" in told.err
    assert main(command) == 0
    assert (
        main(["tokenize", str(corpus_path), "--output", tokens, "--alignment", times, "--workers", "0"]) == 0
    )
    assert main(["inspect", tokens, "--row", "1"]) == 0
    assert "0.02 -   0.03 s  utt001" in capsys.readouterr().out
    assert main(["align", str(corpus_path), "--output", times, "--aligner", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
