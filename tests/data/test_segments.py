"""Training segments: a pure function of (seed, index), whichever way the audio is held."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codec.foundation import UserError
from data.audio import read_audio
from data.corpora import Utterance
from data.segments import SegmentDataset, sampling_weights
from data.waveforms import FileWaveforms, MemoryWaveforms

RATE = 8000


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    random = np.random.default_rng(0)
    made = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        samples = random.integers(-3000, 3000, size=4000 * (number + 1)).astype(np.int16)
        soundfile.write(path, samples, RATE)
        made.append(Utterance(str(number), str(path), speaker="a" if number == 0 else "b"))
    return made


def test_memory_and_files_give_the_same(utterances: list[Utterance]) -> None:
    from_files = SegmentDataset(utterances, RATE, 6000, seed=3)
    from_memory = SegmentDataset(utterances, RATE, 6000, seed=3, preload=True)
    order = [5, 0, 17, 100000, 5, 2]
    for index in order:
        one, other = from_files[index], from_memory[index]
        assert (one["utterance"], one["start"], one["length"]) == (
            other["utterance"],
            other["start"],
            other["length"],
        )
        assert torch.equal(one["waveform"], other["waveform"])
    assert torch.equal(from_files[5]["waveform"], from_files[5]["waveform"])
    other_seed = SegmentDataset(utterances, RATE, 6000, seed=4)
    assert any(other_seed[i]["start"] != from_files[i]["start"] for i in range(10))


@pytest.mark.parametrize("gain_db", [None, (-6.0, -1.0)])
def test_a_segment_is_a_slice_at_a_level(
    utterances: list[Utterance], gain_db: tuple[float, float] | None
) -> None:
    """The recording's own level, unless a range of levels of the whole recording's peak is asked for."""
    dataset = SegmentDataset(utterances, RATE, 6000, seed=1, gain_db=gain_db)
    levels = []
    for index in range(60):
        segment = dataset[index]
        whole = read_audio(utterances[segment["utterance"]].path, RATE)
        audio = whole[segment["start"] : segment["start"] + 6000]
        assert segment["length"] == len(audio) == min(6000, len(whole))
        assert not segment["waveform"][len(audio) :].any()
        if gain_db is None:
            assert torch.equal(segment["waveform"][: len(audio)], audio)
            continue
        gain = float(segment["waveform"].abs().max() / audio.abs().max())
        torch.testing.assert_close(segment["waveform"][: len(audio)], audio * gain, rtol=1e-5, atol=1e-6)
        levels.append(20 * np.log10(gain * float(whole.abs().max())))
    assert gain_db is None or (-6.01 < min(levels) < -5 and -2 < max(levels) < -0.99)


def test_a_peak_is_found_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.waveforms._BLOCK_SECONDS", 0.1)
    monkeypatch.delattr("data.waveforms.read_audio")  # it holds the whole recording in memory
    samples = np.random.default_rng(0).integers(-3000, 3000, size=RATE).astype(np.int16)
    samples[-1] = -9000  # in the last block
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    files = FileWaveforms([Utterance("a", str(tmp_path / "a.wav"))], RATE)
    other = multiprocessing.get_context("fork").Process(target=lambda: files.peak(0))
    other.start()
    other.join(60)
    assert other.exitcode == 0
    (tmp_path / "a.wav").unlink()
    assert files.peak(0) == 9000 / 32768


def test_silence_is_not_amplified_without_bound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.ones(8000, np.int16), RATE)
    quiet = [Utterance("q", str(tmp_path / "quiet.wav"))]
    dataset = SegmentDataset(quiet, RATE, 4000, gain_db=(-6, -1), max_gain_db=20)
    assert float(dataset[0]["waveform"].max()) == pytest.approx(10 / 32768)


def test_speakers_are_balanced(utterances: list[Utterance]) -> None:
    dataset = SegmentDataset(utterances, RATE, 1000, speaker_balance=1.0)
    drawn = np.array([dataset[index]["utterance"] for index in range(600)])
    assert 0.42 < (drawn == 0).mean() < 0.58  # the only utterance of speaker a, 1/21 of the audio
    lengths = np.diff([0, 1, 3, 6]) * 100
    assert sampling_weights(lengths, ["a", "b", "b"], 0.0) == pytest.approx(lengths / lengths.sum())
    tempered = sampling_weights(lengths, ["a", "b", "b"], 0.5)
    assert tempered[0] / tempered[1:].sum() == pytest.approx((100 / 500) ** 0.5)


def test_waveforms_have_one_rate(utterances: list[Utterance]) -> None:
    with pytest.raises(UserError, match="8000 Hz"):
        SegmentDataset(MemoryWaveforms.preload(utterances, RATE), 24000, 2000)


def test_broken_recordings_are_passed_over(utterances: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    nan = np.full(8000, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, RATE, subtype="FLOAT")
    both = [
        Utterance("t", str(tmp_path / "text.wav")),
        Utterance("n", str(tmp_path / "nan.wav"), speaker="n"),
    ]
    files = FileWaveforms([*utterances, *both], RATE)
    assert [identity for identity, _ in files.failures] == ["t"]  # a header does not show NaN
    dataset = SegmentDataset(files, RATE, 2000)
    assert all(bool(torch.isfinite(dataset[index]["waveform"]).all()) for index in range(20))
    assert len(MemoryWaveforms.preload([*utterances, *both], RATE).failures) == 2
    with pytest.raises(UserError, match=r"none of 1 recordings can be read.*not audio"):
        SegmentDataset(both[:1], RATE, 2000)
