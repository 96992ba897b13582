"""Likelihood tests as they are published, in miniature."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.foundation import UserError
from data import read_audio, write_audio
from recipes.reporting.provenance import distinct_names
from slm.evaluation.pairs import (
    PairTest,
    check_pairs,
    evaluate_pairs,
    open_pairs,
    pair_rows,
    stream_likelihoods,
)
from slm.generation.speech_lm import SpeechLM
from slm.models.checkpoint import SpeechCapabilities
from tests.recipes.untrained_models import save_codec, save_slm

RATE = 24_000


def recording(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.randn(6_000 + 1_000 * seed, generator=torch.Generator().manual_seed(seed))
    write_audio(path, 0.1 * noise, RATE)
    return path


def test_layouts(tmp_path: Path) -> None:
    codes = tmp_path / "mine.jsonl"
    codes.write_text(
        json.dumps({"good": [1, 2, 3], "bad": "b.wav", "category": "c"}) + "\n\n"
        + json.dumps({"id": "x", "good": "a.wav", "bad": [4]}) + "\n"
    )  # fmt: skip
    test = open_pairs(codes)
    assert test.name == "mine" and [(pair.id, pair.category) for pair in test.pairs] == [
        ("1", "c"),
        ("x", ""),
    ]
    assert np.array_equal(test.pairs[0].good, [1, 2, 3]) and test.pairs[0].bad == tmp_path / "b.wav"
    assert np.array_equal(test.pairs[1].bad, [4])

    lexical = tmp_path / "lexical"
    for number, name in enumerate(["aA", "bB", "cC", "dD"]):
        recording(lexical / f"{name}.wav", number)
    (lexical / "gold.csv").write_text(
        "id,filename,voice,frequency,word,phones,length_phones,correct\n"
        "7,aA,v1,0,brick,b r,2,1\n8,cC,v1,0,blort,b l,2,0\n7,bB,v1,0,blick,b l,2,0\n8,dD,v1,0,short,s h,2,1\n"
    )
    assert [pair.cluster for pair in open_pairs(lexical).pairs] == ["7", "8"]
    pairs = {pair.id: (pair.good, pair.bad) for pair in open_pairs(lexical).pairs}
    assert pairs == {
        "7 v1": (lexical / "aA.wav", lexical / "bB.wav"),
        "8 v1": (lexical / "dD.wav", lexical / "cC.wav"),
    }

    for part in ("gender_consistency", "rir_consistency"):
        for number in (0, 10, 2):
            for side in (0, 1):
                recording(tmp_path / "salmon" / part / f"sample_{number}_{side}.wav", number + side)
    whole, one = open_pairs(tmp_path / "salmon"), open_pairs(tmp_path / "salmon" / "rir_consistency")
    assert len(whole.pairs) == 6 and [pair.id for pair in one.pairs] == [
        f"rir_consistency/{number}" for number in (0, 2, 10)
    ]
    assert all(pair.good.name.endswith("_0.wav") and pair.bad.name.endswith("_1.wav") for pair in whole.pairs)
    assert {pair.category for pair in whole.pairs} == {"gender_consistency", "rir_consistency"}


def test_spoken_story_cloze(tmp_path: Path) -> None:
    """Both kinds as published: every file has a number of its own; and the kind whose beginning is a file."""
    published = tmp_path / "tSC"
    for number, name in enumerate(["aa-1_correct", "aa-1_incorrect", "b2_incorrect", "b2_correct"]):
        recording(published / f"{number}_{name}.wav", number)
    test = open_pairs(published)
    assert test.name == "tSC" and {pair.id: (pair.good.name, pair.bad.name) for pair in test.pairs} == {
        "aa-1": ("0_aa-1_correct.wav", "1_aa-1_incorrect.wav"),
        "b2": ("3_b2_correct.wav", "2_b2_incorrect.wav"),
    }
    assert all(pair.opening is None and pair.category == "" for pair in test.pairs)

    speakers = tmp_path / "by speaker"
    for speaker in ("p1", "p2"):
        for number, side in enumerate(["correct", "incorrect", "mutual"]):
            recording(speakers / speaker / f"7_{side}.wav", number)
    pairs = open_pairs(speakers).pairs
    assert [(pair.id, pair.category) for pair in pairs] == [("p1/7", "p1"), ("p2/7", "p2")]
    assert [pair.cluster for pair in pairs] == ["7", "7"]  # one story
    assert pairs[0].opening == speakers / "p1" / "7_mutual.wav"
    slm = save_slm(tmp_path / "slm", save_codec(tmp_path / "codec"), [], SpeechCapabilities(["speech"]))
    language_model = SpeechLM.from_pretrained(slm)
    (scored, _) = evaluate_pairs(language_model, open_pairs(speakers)).pairs
    joined = torch.cat(
        [read_audio(speakers / "p1" / f"7_{side}.wav", RATE) for side in ("mutual", "correct")]
    )
    (told,) = stream_likelihoods(
        language_model.model, language_model.vocabulary, [language_model.encode(joined)]
    )
    assert scored.good.nats == pytest.approx(told.nats, abs=1e-3) and scored.good.tokens == told.tokens
    assert scored.bad.tokens > scored.good.tokens  # it is a second and a bit longer

    (published / "0_aa-1_correct.wav").unlink()
    with pytest.raises(UserError, match="aa-1 has no correct recording"):
        open_pairs(published)


def test_what_is_not_a_pair(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"good": "a.wav"}\n')
    (tmp_path / "none.jsonl").write_text('{"good": [], "bad": [1]}\n')
    (tmp_path / "far.jsonl").write_text('{"good": [70000], "bad": [1]}\n')
    (tmp_path / "empty").mkdir()
    lexical = tmp_path / "lexical"
    recording(lexical / "a.wav", 0)
    (lexical / "gold.csv").write_text("id,filename,voice,correct\n1,a,v,1\n")
    recording(tmp_path / "salmon" / "sample_1_0.wav", 0)
    for name, complaint in [
        ("bad.jsonl", "line 1: expected an object with `good` and `bad`"),
        ("none.jsonl", "line 1: expected"),
        ("far.jsonl", "line 1: expected"),
        ("empty", "holds no pair"),
        ("missing", "no such file"),
        ("lexical", "1 v is not one right and one wrong recording"),
        ("salmon", "sample 1 has 1 recordings"),
    ]:
        with pytest.raises(UserError, match=complaint):
            open_pairs(tmp_path / name)
    (lexical / "gold.csv").write_text("id,filename,voice,correct\n1,a,v,1\n1,gone,v,0\n")
    with pytest.raises(UserError, match="gone: no such recording"):
        open_pairs(lexical)


def test_names_tell_tests_apart(tmp_path: Path) -> None:
    for name in ("lexical/dev", "syntactic/dev", "b/syntactic/test"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("mine.jsonl", "lexical/mine.jsonl", "lexical/mine.csv"):
        (tmp_path / name).touch()
    dev = [tmp_path / "lexical/dev", tmp_path / "syntactic/dev", tmp_path / "b/syntactic/test"]
    assert distinct_names(dev) == ["lexical/dev", "syntactic/dev", "test"]
    assert distinct_names(dev[:1]) == ["dev"] and distinct_names([]) == []
    mine = [tmp_path / "mine.jsonl", tmp_path / "lexical/mine.jsonl"]
    assert distinct_names(mine) == [f"{tmp_path.name}/mine", "lexical/mine"]
    endings = [tmp_path / "lexical/mine.jsonl", tmp_path / "lexical/mine.csv"]
    assert distinct_names(endings) == [str(path) for path in endings]
    with pytest.raises(UserError, match="is given twice"):
        distinct_names([mine[0], mine[1], mine[0]])


def test_pairs_that_cannot_be_compared_are_left_out(tmp_path: Path) -> None:
    slm = save_slm(tmp_path / "slm", save_codec(tmp_path / "codec"), [], SpeechCapabilities(["speech"]))
    language_model = SpeechLM.from_pretrained(slm)
    recording(tmp_path / "good.wav", 0)
    write_audio(tmp_path / "empty.wav", torch.zeros(0), RATE)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    write_audio(tmp_path / "long.wav", torch.randn(24_000 * 25) * 0.1, RATE)
    rows = {
        "gone": "gone.wav",
        "empty": "empty.wav",
        "broken": "broken.wav",
        "long": "long.wav",
        "codes": [9_999],
    }
    lines = [json.dumps({"id": "fine", "good": "good.wav", "bad": [1, 2], "cluster": "c"})]
    lines += [json.dumps({"id": name, "good": side, "bad": [1, 2]}) for name, side in rows.items()]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    test = open_pairs(tmp_path / "test.jsonl")
    check_pairs(language_model, test)
    result = evaluate_pairs(language_model, test)
    assert [(pair.id, pair.cluster, pair.same) for pair in result.pairs] == [("fine", "c", False)]
    assert list(result.failures) == list(rows)
    assert (
        "empty.wav" in result.failures["empty"]
        and "600 tokens, the model reads 511" in result.failures["long"]
    )

    unusable = PairTest("bad", [pair for pair in test.pairs if pair.id in ("gone", "codes")])
    with pytest.raises(UserError, match="bad: no pair can be compared; pair gone"):
        check_pairs(language_model, unusable)
    with pytest.raises(UserError, match="no pair can be compared"):
        evaluate_pairs(language_model, unusable)


def test_gain_comes_before_the_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slm = save_slm(tmp_path / "slm", save_codec(tmp_path / "codec"), [], SpeechCapabilities(["speech"]))
    language_model = SpeechLM.from_pretrained(slm)
    encode, heard = language_model.encode, []
    monkeypatch.setattr(language_model, "encode", lambda waveform: heard.append(waveform) or encode(waveform))
    sound = read_audio(recording(tmp_path / "a.wav", 0), RATE)
    (tmp_path / "test.jsonl").write_text(json.dumps({"good": "a.wav", "bad": [1]}))
    for gain in (1.0, 2.0):
        evaluate_pairs(language_model, open_pairs(tmp_path / "test.jsonl"), gain)
    assert torch.equal(heard[0], sound) and torch.equal(heard[1], 2.0 * sound)


def test_scores_are_those_of_the_recordings_codes(tmp_path: Path) -> None:
    slm = save_slm(tmp_path / "slm", save_codec(tmp_path / "codec"), [], SpeechCapabilities(["speech"]))
    language_model = SpeechLM.from_pretrained(slm)
    lines = []
    for number in range(70):  # more than are read at once
        good = recording(tmp_path / f"{number % 3}.wav", number % 3)
        lines.append(
            {"good": good.name, "bad": [number, 5, 9], "category": "even" if number % 2 == 0 else "odd"}
        )
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = evaluate_pairs(language_model, open_pairs(tmp_path / "test.jsonl"))
    codes = language_model.encode(read_audio(tmp_path / "1.wav", RATE))
    told = stream_likelihoods(
        language_model.model, language_model.vocabulary, [codes, np.array([67, 5, 9], np.uint16)]
    )
    pair = result.pairs[67]
    assert pair.id == "68" and pair.good.tokens == len(codes) == 7
    assert (pair.good.nats, pair.bad.nats) == pytest.approx([entry.nats for entry in told], rel=1e-4)
    parts = result.by_category()
    assert [parts[name].pairs for name in ("even", "odd")] == [35, 35]
    assert np.mean([parts[name].total.value for name in parts]) == pytest.approx(result.accuracy.total.value)
    rows = pair_rows([result])
    assert len(rows) == 70 and rows[67]["good_nats"] == pair.good.nats and rows[67]["test"] == "test"

    (tmp_path / "other.jsonl").write_text(json.dumps({"good": [2_048], "bad": [1]}))
    with pytest.raises(UserError, match="pair 1: its codes are not those of hh-codec-tiny"):
        evaluate_pairs(language_model, open_pairs(tmp_path / "other.jsonl"))
