"""Synthetic speech with word times, the aligner, and the sample corpus that ships."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

import recipes.bundled
from codec.foundation import UserError
from data.corpora import Word, open_corpus

SAMPLE = Path(recipes.bundled.__file__).parent / "sample_corpus"


@pytest.fixture(scope="module")
def slt():
    from recipes.bundled.flite import FliteVoice

    try:
        return FliteVoice("slt")
    except UserError as error:
        pytest.skip(str(error))


def test_sample_corpus_is_what_the_quickstart_needs():
    corpus = open_corpus(SAMPLE)
    assert len(corpus.utterances) == 40
    assert {(u.speaker, u.split) for u in corpus.utterances} == set(
        itertools.product(("flite-slt", "flite-rms"), ("train", "validation"))
    )
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*") if file.is_file()) < 4_000_000
    for utterance in corpus.utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        assert [word.word for word in utterance.words] == utterance.text.split()
        times = [time for word in utterance.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] > 0 and times[-1] <= info.duration + 1e-4


def test_sample_corpus_says_the_same_in_both_layouts():
    manifest, ljspeech = (
        open_corpus(SAMPLE, format=layout).utterances for layout in ("manifest", "ljspeech")
    )
    assert [(u.id, u.text, u.split) for u in manifest] == [(u.id, u.text, u.split) for u in ljspeech]
    assert [Path(u.path).resolve() for u in manifest] == [Path(u.path).resolve() for u in ljspeech]


def test_words_are_where_the_sound_is():
    """Before the first word and behind the last one there is near silence, inside words there is not."""
    for utterance in open_corpus(SAMPLE).utterances:
        samples, rate = soundfile.read(utterance.path)

        def level(start, end, samples=samples, rate=rate):
            return np.sqrt(np.mean(samples[int(start * rate) : int(end * rate)] ** 2))

        inside = min(level(word.start, word.end) for word in utterance.words)
        outside = max(level(0, utterance.words[0].start - 0.03), level(utterance.words[-1].end + 0.05, 1e9))
        assert outside < 0.25 * inside, utterance.id


def test_flite_times_follow_the_written_words(slt):
    text = "Dr. Brown's well-known cat, born in 1842, slept."
    speech = slt.synthesize(text)
    assert [word.word for word in speech.words] == text.split()
    times = [time for word in speech.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= speech.seconds
    by_word = {word.word: word.end - word.start for word in speech.words}
    assert by_word["1842,"] > 3 * by_word["in"]  # eighteen forty two
    assert np.array_equal(speech.samples, slt.synthesize(text).samples)


def test_flite_refuses_what_it_cannot_map(slt):
    with pytest.raises(ValueError, match="nothing for '--'"):
        slt.synthesize("Wait -- for me.")


def test_24_khz_keeps_duration_and_cuts_the_tail(slt):
    from recipes.bundled.synthesize import TRAILING_SILENCE, to_24_khz

    speech = slt.synthesize("The lamp is warm.")
    resampled = to_24_khz(speech)
    end = min(speech.seconds, speech.words[-1].end + TRAILING_SILENCE)
    assert resampled.seconds == pytest.approx(end, abs=1e-3)
    assert [word.word for word in resampled.words] == ["The", "lamp", "is", "warm."]


def test_synthesize_writes_a_corpus_that_data_reads(slt, tmp_path):
    from recipes.bundled.synthesize import synthesize

    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        '{"id": "a", "text": "Good morning to you."}\n'
        '{"id": "b", "text": "Oh -- no."}\n'
        '{"id": "c", "text": "It rained."}\n'
    )
    made = partial(
        synthesize, texts, "flite", "slt", [], tmp_path / "corpus", start=0, validation=1, processes=1, seed=1
    )
    numbers = made(hours=1.0)
    assert (numbers["utterances"], numbers["failed"], numbers["next text"]) == (2, 1, 3)
    utterances = open_corpus(tmp_path / "corpus").utterances
    assert [(u.id, u.split, u.speaker) for u in utterances] == [
        ("a", "validation", "flite-slt"),
        ("c", "train", "flite-slt"),
    ]
    # a run that was killed while it wrote its last line goes on there
    manifest = tmp_path / "corpus" / "manifest.jsonl"
    whole = manifest.read_text()
    manifest.write_text(whole[:-20])
    assert made(hours=1.0)["utterances"] == 2
    assert manifest.read_text() == whole
    assert made(hours=1e-5)["utterances"] == 2


def test_alignment_finds_the_times_that_the_synthesiser_knows():
    pytest.importorskip("pocketsphinx")
    from recipes.bundled.align_recordings import check

    errors = check(SAMPLE / "manifest.jsonl", count=6, processes=1)
    assert (errors.utterances, errors.rejected, errors.unplaced) == (6, 0, 0)
    assert errors.median_ms < 20 and errors.mean_ms < 30


def test_a_manifest_of_recordings_keeps_words_without_times(tmp_path, monkeypatch):
    from recipes.bundled import align_recordings

    (tmp_path / "wavs").mkdir()
    (tmp_path / "metadata.csv").write_text("b|Oh no.|Oh no.\na|Yes.|Yes.\n")
    words = {"a": None, "b": (Word("Oh", 0.12345678, 0.5), Word("no.", None, None))}

    def known(corpus, processes):
        return replace(corpus, utterances=[replace(u, words=words[u.id]) for u in corpus.utterances])

    monkeypatch.setattr(align_recordings, "aligned", known)
    align_recordings.write_aligned(tmp_path, tmp_path / "manifest.jsonl", "kathleen", "en", processes=1)
    found = {u.id: u.words for u in open_corpus(tmp_path / "manifest.jsonl").utterances}
    assert found == {"a": None, "b": (Word("Oh", 0.1235, 0.5), Word("no.", None, None))}
