"""Exported codecs: saved and loaded by any road they are the same codec, and their fingerprint says which."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from codec import (
    CodecInfo,
    CodecModel,
    UserError,
    export_codec,
    fingerprint,
    load_codec,
    preset_config,
    save_codec,
)
from codec.loading import read_model
from codec.losses.config import LossWeights
from codec.training.config import CodecTrainingConfig, Stage
from codec.training.initialization import build_model, model_config
from tests.codec.small_codecs import small_codec, small_config, speech_like

# each encoder, decoder and vocoder once; the other presets are the same parts in other numbers
ONE_OF_A_KIND = "hh-codec-tiny", "hybrid-codec", "hh-codec-24hz"  # the last with BigVGAN


def same_weights(first: CodecModel, second: CodecModel) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@torch.no_grad()
@pytest.mark.parametrize("exported", [True, False])
@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_a_saved_codec_is_the_same_by_every_road(preset: str, exported: bool, tmp_path: Path) -> None:
    model = small_codec(preset, exported=exported)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is type(model.config)
    assert type(config.encoder_config) is type(model.config.encoder_config)
    for name in (
        "encoder",
        "quantizer",
        "decoder",
        "vocoder",
        "name",
        "chunk_seconds",
        "exported",
        "fingerprint",
    ):
        assert getattr(config, name) == getattr(model.config, name)
    audio = speech_like(1, 24_000)[None]
    codes = model.encode(audio).audio_codes
    for loaded in (
        type(model).from_pretrained(tmp_path),
        AutoModel.from_pretrained(tmp_path),
        read_model(tmp_path),
    ):
        assert type(loaded) is type(model)
        assert same_weights(loaded, model)
        assert torch.equal(loaded.eval().encode(audio).audio_codes, codes)
        # what is not stored is built again: windows of the STFTs, mel filters
        assert torch.equal(loaded.decode(codes).audio_values, model.decode(codes).audio_values)


@torch.no_grad()
@pytest.mark.parametrize(
    ("preset", "dtype"),
    [
        *((name, "float16") for name in ONE_OF_A_KIND),
        *((ONE_OF_A_KIND[0], dtype) for dtype in ("float32", "bfloat16")),
    ],
)
def test_what_is_stored_in_16_bits_is_read_as_float32(preset: str, dtype: str, tmp_path: Path) -> None:
    trained = small_codec(preset, exported=False)
    exported = save_codec(trained, tmp_path / "codec", dtype, card="# A codec\n")
    stored = load_file(tmp_path / "codec" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    assert (tmp_path / "codec" / "README.md").read_text() == "# A codec\n"
    modes = {path.stat().st_mode for path in (tmp_path / "codec").iterdir()}
    assert len(modes) == 1  # safetensors alone would let nobody but the owner read
    by_name = load_codec(tmp_path / "codec")
    by_auto = AutoModel.from_pretrained(tmp_path / "codec")
    audio = speech_like(2, 30_000)[:, None]
    for loaded in (by_name, by_auto):
        assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
        assert same_weights(loaded, exported)
        assert loaded.config.fingerprint == fingerprint(loaded) == fingerprint(exported)
        assert torch.equal(loaded.eval().encode(audio).audio_codes, exported.encode(audio).audio_codes)
    assert not by_name.training and CodecInfo.of(by_name).fingerprint == exported.config.fingerprint
    again = save_codec(by_name, tmp_path / "again", dtype)
    assert same_weights(again, exported) and again.config.fingerprint == exported.config.fingerprint
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "codec" / name).read_bytes()


@torch.no_grad()
@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_the_fingerprint_is_of_what_codes_mean_and_nothing_else(preset: str) -> None:
    codec = small_codec(preset)
    own = fingerprint(codec)
    assert len(own) == 16 and int(own, 16) >= 0 and own == fingerprint(export_codec(codec))
    moved = copy.deepcopy(codec)
    for part in set(moved.PARTS) - {"encoder", "quantizer"}:
        for parameter in moved.get_submodule(part).parameters():
            parameter.add_(1.0)
    moved.config.decoder["dim" if "dim" in moved.config.decoder else "num_filters"] += 1
    moved.config.name = "another"
    assert fingerprint(moved) == own
    names = [name for name in codec.state_dict() if name.startswith(("encoder.", "quantizer."))]
    assert len(names) > 10 and any("codebook" in name for name in names)
    found = {own}
    for name in names:
        last = codec.state_dict()[name].view(-1)[-1:]
        before = last.clone()
        last.add_(1e-3)
        found.add(fingerprint(codec))
        last.copy_(before)
    assert len(found) == len(names) + 1
    if codec.config.window is not None:
        for field in ("chunk_seconds", "overlap_seconds"):
            changed = copy.deepcopy(codec)
            setattr(changed.config, field, 1.0)
            found.add(fingerprint(changed))
        assert len(found) == len(names) + 3
    with pytest.raises(ValueError, match="export_codec"):
        fingerprint(small_codec(preset, exported=False))


def test_codec_info_round_trip_and_comparison() -> None:
    codec = small_codec("hh-codec-24hz-vocos")
    info = CodecInfo.of(codec)
    assert (info.sampling_rate, info.hop_length, info.frame_rate) == (24_000, 1_000, 24.0)
    assert (info.codebook_sizes, info.num_quantizers) == ((64,), 1)
    assert (info.chunk_seconds, info.overlap_seconds) == (20.0, 2.0)
    stored = json.loads(json.dumps(info.to_dict() | {"rows": 3}))
    assert CodecInfo.from_dict(stored) == info
    info.check_same(CodecInfo.from_dict(stored), what="the dataset x")
    other = CodecInfo.of(small_codec("hh-codec-24hz-vocos", seed=1))
    with pytest.raises(UserError) as caught:
        info.check_same(other, what="the dataset x")
    message = str(caught.value)
    assert all(part in message for part in ("the dataset x", info.fingerprint, other.fingerprint))
    assert info.fingerprint != other.fingerprint and "\n" not in message


def error_of(name: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_codec(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_codec_is_said_in_one_line(tmp_path: Path) -> None:
    assert "no codec hh-codec-tinny: expected a bundled one" in error_of("hh-codec-tinny")
    assert "no codec" in error_of(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "holds no codec: expected a training run or a directory with config.json" in error_of(
        tmp_path / "empty"
    )
    (tmp_path / "audio.wav").write_bytes(b"RIFF")
    assert "no codec" in error_of(tmp_path / "audio.wav")
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": torch.zeros(1)}, tmp_path / "llama" / "model.safetensors")
    assert "model_type is 'llama', not one of hh-codec, hybrid-codec" in error_of(tmp_path / "llama")


def test_a_damaged_codec_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "codec"

    def fresh() -> dict[str, torch.Tensor]:
        save_codec(small_codec("hh-codec-tiny"), path)
        return load_file(path / "model.safetensors")

    tensors = fresh()
    del tensors["decoder.head.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert "missing keys decoder.head.weight" in error_of(path)
    tensors = fresh() | {"decoder.tail.weight": torch.zeros(2)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert "unexpected keys decoder.tail.weight" in error_of(path)
    tensors = fresh() | {"quantizer.codebook": torch.zeros(3, 16)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert "mismatched keys quantizer.codebook" in error_of(path)
    fresh()
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert str(path) in error_of(path)
    fresh()
    (path / "config.json").write_text('{"model_type": "hh-codec", "encoder": {"kind": "wavelet"}}')
    assert "unknown encoder kind 'wavelet'" in error_of(path)
    (path / "config.json").write_text("{")
    assert str(path) in error_of(path)


def test_an_export_replaces_codecs_and_nothing_else(tmp_path: Path) -> None:
    codec = small_codec("hh-codec-tiny")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("all of it")
    with pytest.raises(UserError, match="is not an exported codec"):
        save_codec(codec, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "all of it"
    trained = small_codec("hh-codec-tiny", exported=False)
    trained.save_pretrained(tmp_path / "trained")
    with pytest.raises(UserError, match="is not an exported codec"):
        save_codec(codec, tmp_path / "trained")
    (tmp_path / "new").mkdir()
    save_codec(codec, tmp_path / "new")
    other = save_codec(small_codec("hh-codec-tiny", seed=1), tmp_path / "new", "float16")
    assert load_codec(tmp_path / "new").config.fingerprint == other.config.fingerprint
    with pytest.raises(UserError, match="cannot store weights as 'int8'"):
        save_codec(codec, tmp_path / "int8", "int8")


# ---- what a training run may ask for


def refusal(**fields: object) -> str:
    with pytest.raises(UserError) as caught:
        build_model(CodecTrainingConfig(**fields))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_start_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    small_config("hh-codec-tiny").save_pretrained(tmp_path / "config")
    small = str(tmp_path / "config")
    save_codec(small_codec("hh-codec-24hz-vocos"), tmp_path / "other")
    assert "no codec 'hh-codec-huge' to train: give a preset (" in refusal(model="hh-codec-huge")
    assert "initialize names 'head': the parts are" in refusal(model=small, initialize={"head": small})
    assert "absent" in refusal(model=small, initialize={"vocoder": str(tmp_path / "absent")})
    assert "the vocoder of" in refusal(model=small, initialize={"vocoder": str(tmp_path / "other")})
    exported = refusal(model="hh-codec-tiny", initialize={"quantizer": "hh-codec-tiny"})
    assert "is an exported codec, whose quantizer holds finished codes" in exported
    assert "model_overrides names 'head'" in refusal(model=small, model_overrides={"head": {}})
    assert "MelDecoderConfig has no field depth" in refusal(
        model=small, model_overrides={"decoder": {"depth": 3}}
    )
    assert "has 16 dimensions, the quantizer's codebook 8" in refusal(
        model=small, model_overrides={"quantizer": {"dim": 8}}
    )
    with pytest.raises(KeyError, match="no preset 'x'; there are hh-codec, hh-codec-24hz"):
        preset_config("x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"train": ["encodr"]}, "a stage trains encodr: the parts are encoder"),
        ({"train": []}, "a stage trains nothing"),
        ({"train": ["encoder", "vocoder"]}, "none of its losses reaches vocoder"),
        ({"train": ["decoder"], "vocoder_input": "recording"}, "none of its losses reaches decoder"),
        ({"train": ["quantizer"], "losses": LossWeights(vq=0)}, "none of its losses reaches quantizer"),
        ({"train": ["decoder"], "losses": LossWeights(distillation=1)}, "has to train the encoder"),
        ({"steps": 0}, "steps 0"),
    ],
)
def test_a_stage_that_cannot_learn_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Stage(**fields)  # type: ignore[arg-type]


def test_parts_come_from_where_they_are_said_to(tmp_path: Path) -> None:
    small_config("hh-codec-tiny").save_pretrained(tmp_path / "config")
    donor = save_codec(small_codec("hh-codec-tiny", seed=5), tmp_path / "donor")
    model = build_model(
        CodecTrainingConfig(model=str(tmp_path / "config"), initialize={"vocoder": str(tmp_path / "donor")})
    )
    for name, tensor in donor.vocoder.state_dict().items():
        assert torch.equal(model.vocoder.state_dict()[name], tensor)
    assert not torch.equal(model.decoder.head.weight, donor.decoder.head.weight)
    # a decoder retrained for settled codes: the exported codec whole, its fingerprint unchanged by its export
    config = CodecTrainingConfig(model=str(tmp_path / "donor"), initialize={"all": str(tmp_path / "donor")})
    assert model_config(config).exported
    retrained = build_model(config)
    with torch.no_grad():
        retrained.decoder.head.bias.add_(1.0)
    assert export_codec(retrained).config.fingerprint == donor.config.fingerprint
