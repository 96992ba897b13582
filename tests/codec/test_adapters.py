"""Codecs of transformers behind our interface: the same codes and audio as called directly, and our laws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Xcodec2FeatureExtractor

from codec import CodecInfo, UserError, load_codec
from codec.adapters import CodecAdapter, adapt
from tests.codec.small_adapters import SMALL, save_small, small_model
from tests.codec.small_codecs import refuses_codes_out_of_range, speech_like

KINDS = sorted(SMALL)
RATE = {"mimi": 24_000, "encodec": 24_000, "dac": 16_000, "xcodec2": 16_000}
HOP = {"mimi": 1_920, "encodec": 320, "dac": 320, "xcodec2": 320}
SIZES = {"mimi": [64] * 4, "encodec": [32] * 4, "dac": [32] * 3, "xcodec2": [256]}
LENGTHS = [20_000, 7_777, 1_920, 1_919, 1, 0]  # samples


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(kind: str) -> PreTrainedModel:
    return small_model(kind)


@pytest.fixture(scope="module")
def codec(model: PreTrainedModel) -> CodecAdapter:
    return adapt(model, "small")


@torch.no_grad()
def direct_codes(kind: str, model: Any, waveform: Tensor) -> Tensor:
    """What the class's own documentation says to call, for one recording (samples,) -> (quantizers, frames)."""
    batch = waveform[None, None]
    if kind == "mimi":
        return model.encode(batch).audio_codes[0]
    if kind == "encodec":
        return model.encode(batch, bandwidth=1.5).audio_codes[0, 0]
    if kind == "dac":
        padded = torch.nn.functional.pad(batch, (0, -len(waveform) % 320))
        return model.encode(padded).audio_codes[0]
    extractor = Xcodec2FeatureExtractor()
    inputs = extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
    return model.encode(**inputs).audio_codes[0]


@torch.no_grad()
def direct_audio(kind: str, model: Any, codes: Tensor) -> Tensor:
    """Codes (quantizers, frames) -> (samples,)."""
    if kind == "encodec":
        return model.decode(codes[None, None], [None]).audio_values[0, 0]
    if kind == "dac":
        return model.decode(audio_codes=codes[None]).audio_values[0]
    return model.decode(codes[None]).audio_values[0, 0]


def test_facts(kind: str, codec: CodecAdapter) -> None:
    info = CodecInfo.of(codec)
    assert (info.sampling_rate, info.hop_length) == (RATE[kind], HOP[kind])
    assert info.frame_rate == RATE[kind] / HOP[kind]
    assert list(info.codebook_sizes) == SIZES[kind] and info.num_quantizers == len(SIZES[kind])
    assert CodecInfo.from_dict(info.to_dict()) == info


def test_codes_are_those_of_transformers(kind: str, model: PreTrainedModel, codec: CodecAdapter) -> None:
    used = 0
    for samples in (30_000, 19_200, 4_567):
        waveform = speech_like(1, samples, seed=samples)[0]
        codes = codec.encode(waveform[None, None]).audio_codes[0]
        frames = -(-samples // HOP[kind])
        assert codes.shape == (len(SIZES[kind]), frames)
        # X-Codec-2's extractor adds a sample, and so a frame behind recordings that fill their last one
        expected = direct_codes(kind, model, waveform)
        assert expected.shape[1] - frames == (kind == "xcodec2" and samples % 320 == 0)
        assert torch.equal(codes, expected[:, :frames])
        used = max(used, len(codes[0].unique()))
    assert used > 3  # not one code for everything


def test_audio_is_that_of_transformers(kind: str, model: PreTrainedModel, codec: CodecAdapter) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(0, size, (9,), generator=generator) for size in SIZES[kind]])
    audio = codec.decode(codes[None]).audio_values[0, 0]
    expected = direct_audio(kind, model, codes)
    assert audio.shape == (9 * HOP[kind],)
    missing = {"dac": 8}.get(
        kind, 0
    )  # 8 * 4 * 2: what DAC's stride of 5 drops, upsampled; the first stage drops none
    assert len(expected) == len(audio) - missing
    assert torch.equal(audio[: len(expected)], expected) and not audio[len(expected) :].any()
    assert expected.abs().max() > 1e-4


def test_codes_do_not_depend_on_the_batch(kind: str, codec: CodecAdapter) -> None:
    batch = speech_like(len(LENGTHS), max(LENGTHS))[:, None]
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    together = codec.encode(torch.where(mask[:, None], batch, 3.0), mask)
    for row, samples in enumerate(LENGTHS):
        alone = codec.encode(batch[row : row + 1, :, :samples]).audio_codes
        frames = -(-samples // HOP[kind])
        assert alone.shape[-1] == frames == int(together.frame_mask[row].sum())
        assert torch.equal(together.audio_codes[row, :, :frames], alone[0])
        assert not together.audio_codes[row, :, frames:].any()
    audio = codec.decode(together.audio_codes, together.frame_mask).audio_values
    assert audio.shape == (len(LENGTHS), 1, together.audio_codes.shape[-1] * HOP[kind])
    for row, samples in enumerate(LENGTHS):
        frames = -(-samples // HOP[kind])
        alone = codec.decode(together.audio_codes[row : row + 1, :, :frames]).audio_values
        assert alone.shape[-1] == frames * HOP[kind]
        assert torch.equal(audio[row, 0, : frames * HOP[kind]], alone[0, 0])
        assert not audio[row, 0, frames * HOP[kind] :].any()


def test_codes_out_of_range_are_an_error(codec: CodecAdapter) -> None:
    refuses_codes_out_of_range(codec)


def test_long_audio_goes_in_windows(
    kind: str, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the blocks; and codes of a codec that sees less than the overlap are those of the whole."""
    monkeypatch.setattr(type(adapt(model, "small")), "chunk_seconds", 2.0)
    monkeypatch.setattr(type(adapt(model, "small")), "overlap_seconds", 0.5)
    codec = adapt(model, "small")
    waveform = speech_like(1, 5 * RATE[kind] + 123)[0]
    whole = codec.encode(waveform[None, None]).audio_codes[0]
    assert whole.shape[1] == -(-len(waveform) // HOP[kind])
    assert torch.equal(codec.encode_blocks(iter(waveform.split(7_001))).audio_codes[0], whole)
    at_once = direct_codes(kind, model, waveform)
    if kind == "dac":
        assert torch.equal(whole, at_once)
    else:
        assert (whole == at_once[:, : whole.shape[1]]).float().mean() > 0.6
    blocks = list(codec.decode_blocks(whole))
    assert len(blocks) > 2
    audio = codec.decode(whole[None]).audio_values[0, 0]
    assert torch.equal(torch.cat(blocks), audio) and len(audio) == whole.shape[1] * HOP[kind]
    if kind == "dac":
        assert torch.allclose(audio[:-8], direct_audio(kind, model, whole), atol=1e-5)


@pytest.mark.parametrize("kind", ["mimi", "encodec", "dac"], scope="module")
def test_fewer_quantizers(kind: str, model: PreTrainedModel, codec: CodecAdapter) -> None:
    few = adapt(model, "small", num_quantizers=2)
    assert few.config.num_quantizers == 2 and few.config.codebook_sizes == codec.config.codebook_sizes[:2]
    assert few.config.name == "small:2" and few.config.fingerprint != codec.config.fingerprint
    waveform = speech_like(1, 9_000)[:, None]
    codes = few.encode(waveform).audio_codes
    assert torch.equal(codes, codec.encode(waveform).audio_codes[:, :2])
    assert torch.equal(few.decode(codes).audio_values[0, 0], codec.decode(codes).audio_values[0, 0])


def test_what_a_code_stands_for(kind: str, model: Any, codec: CodecAdapter) -> None:
    """The entries that a frame's codes name add up to what goes into the decoder."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(0, size, (5,), generator=generator) for size in SIZES[kind]])
    total = sum(codec.effective_codebook(q)[row] for q, row in enumerate(codes))  # (frames, dim)
    with torch.no_grad():
        if kind == "dac":
            decoded = model.quantizer.from_codes(codes[None])[0][0].T
        elif kind == "encodec":
            decoded = model.quantizer.decode(codes[:, None])[0].T
        elif kind == "mimi":
            decoded = model.quantizer.decode(codes[None])[0].T
        else:
            decoded = model.quantizer.from_codes(codes[None].transpose(1, 2))[0]
    assert torch.allclose(total, decoded, atol=1e-5)


def test_fingerprint_says_what_codes_mean(kind: str) -> None:
    fingerprint = adapt(small_model(kind), "one").config.fingerprint
    model = small_model(kind)
    with torch.no_grad():
        decoder = model.acoustic_decoder if kind == "xcodec2" else model.decoder
        next(decoder.parameters()).add_(1.0)
    assert adapt(model, "another").config.fingerprint == fingerprint
    with torch.no_grad():
        encoder = model.acoustic_encoder if kind == "xcodec2" else model.encoder
        next(encoder.parameters()).view(-1)[0] += 1.0
    assert adapt(model, "one").config.fingerprint != fingerprint


def test_loaded_by_directory(kind: str, tmp_path: Path) -> None:
    directory = save_small(kind, tmp_path / "a codec")
    codec = load_codec(directory)
    expected = adapt(small_model(kind), "a codec")
    assert isinstance(codec, CodecAdapter) and codec.config == expected.config
    waveform = speech_like(1, 8_000)[:, None]
    assert torch.equal(codec.encode(waveform).audio_codes, expected.encode(waveform).audio_codes)
    most = len(SIZES[kind])
    if most > 1:
        assert load_codec(f"{directory}:2").config == load_codec(directory, num_quantizers=2).config
        assert load_codec(f"{directory}:2").config.name == "a codec:2"
    with pytest.raises(UserError, match=f"has 1 to {most} quantizers to use, not 9"):
        load_codec(f"{directory}:9")


def test_half_precision_files_load_in_float32(tmp_path: Path) -> None:
    small_model("encodec").to(torch.float16).save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert {parameter.dtype for parameter in codec.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("encodec", {"normalize": True}, "sends loudness beside its codes"),
        ("encodec", {"audio_channels": 2}, "codes two channels"),
        ("encodec", {"chunk_length_s": 1.0, "overlap": 0.01}, "chunks"),
    ],
)
def test_refused(kind: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        adapt(small_model(kind, **changes), "some codec")


def test_what_is_wrong_with_a_directory(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    directory = save_small("dac", tmp_path / "dac")
    with pytest.raises(UserError, match="asks for 2 quantizers, num_quantizers for 3"):
        load_codec(f"{directory}:2", num_quantizers=3)
    weights = load_file(directory / "model.safetensors")
    weights.pop("encoder.conv1.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing keys encoder\.conv1\.weight"):
        load_codec(directory)
    (directory / "model.safetensors").write_bytes(np.zeros(9, np.uint8).tobytes())
    with pytest.raises(UserError, match="cannot load the codec"):
        load_codec(directory)
    with pytest.raises(UserError, match="has 1 quantizer, not 3"):
        load_codec("hh-codec-tiny:3")
