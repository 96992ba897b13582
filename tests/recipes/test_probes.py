"""Probes: frames get the characters spoken in them, and codes are tried on what is known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import UserError, save_codec
from data import Utterance, Word, write_audio
from recipes.cli.main import main
from recipes.evaluation.codec_evaluation import NamedCodec
from recipes.evaluation.codec_report import probes_table
from recipes.evaluation.probes import frame_characters, probe
from tests.codec.small_codecs import small_codec, speech_like

NUMBERS = {"a": 1, "b": 2, "c": 3}


def test_characters_share_a_words_time() -> None:
    words = [Word("Ab!", 0.2, 0.6), Word("c", 0.6, 0.8)]
    labels = frame_characters(words, 10, 10.0, NUMBERS)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 0, 0]


def test_what_is_not_known_is_not_silence() -> None:
    words = [Word("a", 0.0, 0.2), Word("lost", None, None), Word("b", 0.5, 0.7), Word("...", 0.7, 0.8)]
    labels = frame_characters(words, 10, 10.0, NUMBERS)
    assert labels.tolist() == [1, 1, -1, -1, -1, 2, 2, -1, 0, 0]
    tail = frame_characters([Word("a", 0.0, 0.2), Word("lost", None, None)], 5, 10.0, NUMBERS)
    assert tail.tolist() == [1, 1, -1, -1, -1]
    assert frame_characters([], 3, 10.0, NUMBERS).tolist() == [0, 0, 0]


class ToneCodec:
    """A codec of 10 frames a second whose first codes say whether there is sound, and whose second say nothing."""

    def __init__(self) -> None:
        class Config:
            name, sampling_rate, hop_length, codebook_sizes = "tones", 1_000, 100, [2, 50]

        self.config = Config
        self.random = torch.Generator().manual_seed(0)

    def to(self, device: torch.device) -> "ToneCodec":
        return self

    def encode(self, waveform: torch.Tensor) -> object:
        frames = waveform[0, 0].unflatten(0, (-1, 100))
        loud = (frames.square().mean(dim=1) > 1e-3).long()
        noise = torch.randint(0, 50, loud.shape, generator=self.random)
        return type("Output", (), {"audio_codes": torch.stack([loud, noise])[None]})()


def test_planted_codes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    utterances = []
    for number in range(40):
        start = float(random.integers(1, 5)) / 10
        waveform = torch.zeros(1_000)
        waveform[round(1_000 * start) : 900] = 0.5
        # one speaker is loud from beginning to end
        if number % 2:
            waveform[:] = 0.5
        write_audio(tmp_path / f"{number}.wav", waveform, 1_000)
        words = None if number % 2 else [Word("aa", start, 0.9)]
        own = Utterance(str(number), tmp_path / f"{number}.wav", text="aa", speaker="ab"[number % 2])
        utterances.append(dataclasses.replace(own, words=words))
    (found,) = probe([NamedCodec("tones", ToneCodec())], utterances, 1.0, "cpu")
    first, second = found.quantizers
    assert first.characters is not None and second.characters is not None
    assert first.characters.share > 0.9 > 0.1 > second.characters.share
    assert first.characters.utterances == 20 and first.speakers is not None
    assert first.speaker is not None and second.speaker is not None
    assert first.speaker.accuracy.value == 1.0 and second.speaker.accuracy.low < 0.5
    table = str(probes_table([found]))
    assert "tones, 1" in table and "100 %" in table and "50 %" in table
    with pytest.raises(UserError, match="10 utterances at least: there are 3"):
        probe([NamedCodec("tones", ToneCodec())], utterances[:3], 1.0, "cpu")
    silent = [dataclasses.replace(utterance, words=None, speaker=None) for utterance in utterances]
    with pytest.raises(UserError, match="nothing to probe codes with"):
        probe([NamedCodec("tones", ToneCodec())], silent, 1.0, "cpu")


@pytest.mark.usefixtures("undrawn")
def test_rows_for_the_first_quantizers(tmp_path: Path) -> None:
    save_codec(small_codec("hybrid-codec-tiny"), tmp_path / "codec")
    lines = []
    for number, waveform in enumerate(speech_like(14, 12_000)):
        write_audio(tmp_path / f"{number}.wav", waveform, 24_000)
        entry = {"id": str(number), "audio": f"{number}.wav", "text": "one two", "speaker": f"s{number % 2}"}
        entry["words"] = [["one", 0.1, 0.2], ["two", 0.3, 0.45]]
        lines.append(json.dumps({**entry, "split": "validation" if number < 2 else "train"}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    command = ["evaluate-codec", str(tmp_path / "manifest.jsonl"), "--codec", str(tmp_path / "codec")]
    command += [
        "--output",
        str(tmp_path / "out"),
        "--quantizers",
        "[1,3,9]",
        "--probes",
        "12",
        "--asr",
        "none",
    ]
    assert main([*command, "--metrics", "[log_mel_l1]", "--stability", "0", "--processes", "1"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    name = small_codec("hybrid-codec-tiny").config.name
    # the vocoder is the same for all
    assert list(results["systems"]) == [f"{name}:1", f"{name}:3", f"vocoder of {name} on true mels", name]
    assert results["codecs"][f"{name}:1"]["location"].endswith("codec:1")
    probed = results["probes"][name]["quantizers"]
    assert [entry["quantizer"] for entry in probed] == [0, 1, 2, 3]
    assert all(entry["characters"]["utterances"] == 12 for entry in probed)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "## What the codes say" in report and f"{name}, 4" in report
