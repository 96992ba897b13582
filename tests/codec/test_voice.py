"""A codec with a running level, FSQ and a voice vector: the laws, and what is its own."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from codec import CodecModel, export_codec, load_codec, save_codec
from codec.configuration import fingerprint
from codec.hh_codec.configuration import FSQConfig
from codec.hh_codec.fsq import FSQ
from codec.loading import load_trained
from codec.losses.config import LossWeights
from codec.nn.mel import NORMAL_LEVEL, RunningLevel
from codec.presets import PRESETS
from codec.streaming_codec import StreamingDecoder, StreamingEncoder
from codec.training.batches import collate
from codec.training.config import CodecTrainingConfig, OptimizerConfig
from codec.training.loop import train_codec
from codec.training.step import CodecTrainingStep, SemanticObjectives
from tests.codec.small_codecs import SMALL_PARTS, small_codec, small_config, speech_like
from tests.codec.training_runs import CODES, SpeechSegments, speech_data

ENCODER = {
    **SMALL_PARTS["hh-codec-tiny"]["encoder"],
    "kind": "log-mel",
    "level": "running",
    "voice": {"dim": 6, "hidden_dim": 16, "blocks": 1, "seconds": 1.0},
}
HYBRID_MEL = PRESETS["hybrid-codec-tiny"]["encoder"]
QUANTIZER = {"kind": "fsq", "levels": [8, 5, 4], "dim": 16}


def voiced_codec(exported: bool = True) -> CodecModel:
    """Untrained, but its decoder listens to the voice."""
    model = small_codec(
        "hh-codec-tiny",
        exported=False,
        encoder=ENCODER,
        quantizer=QUANTIZER,
    )
    for block in [*model.decoder.convnext, *model.decoder.fine]:
        torch.nn.init.normal_(block.condition.weight, std=0.3)
    return export_codec(model) if exported else model


@pytest.fixture(scope="module")
def codec() -> CodecModel:
    return voiced_codec()


@torch.no_grad()
def test_codes_voices_and_audio_do_not_depend_on_the_batch(codec: CodecModel) -> None:
    lengths = [48_000, 31_337, 999, 5_001]
    waveform = speech_like(len(lengths), max(lengths))[:, None]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    together = codec.encode(torch.where(mask[:, None], waveform, 3.0), mask)
    audio = codec.decode(together.audio_codes, together.frame_mask, together.voice).audio_values
    for row, samples in enumerate(lengths):
        alone = codec.encode(waveform[row : row + 1, :, :samples])
        frames = -(-samples // codec.config.hop_length)
        assert torch.equal(together.audio_codes[row, :, :frames], alone.audio_codes[0])
        assert (together.voice[row] - alone.voice[0]).abs().max() <= 1e-4
        own = codec.decode(alone.audio_codes, voice=alone.voice).audio_values[0, 0]
        assert (audio[row, 0, : frames * codec.config.hop_length] - own).abs().max() <= 1e-4
    assert (together.voice[0] - together.voice[1]).abs().max() > 0.1


@torch.no_grad()
def test_blocks_and_streams_equal_the_whole(codec: CodecModel) -> None:
    waveform = speech_like(1, 61_234)
    whole = codec.encode(waveform[:, None])
    assert whole.audio_codes.unique().numel() > 10
    audio = codec.decode(whole.audio_codes, voice=whole.voice).audio_values[0, 0]
    for size in (777, 5_000, 24_000):
        blocks = codec.encode_blocks(waveform[0].split(size))
        assert torch.equal(blocks.audio_codes, whole.audio_codes)
        assert (blocks.voice - whole.voice).abs().max() <= 1e-5
        encoder = StreamingEncoder(codec)
        streamed = [encoder.push(chunk) for chunk in waveform.split(size, dim=1)] + [encoder.finish()]
        assert torch.equal(torch.cat(streamed, dim=-1), whole.audio_codes)
    for frames in (1, 7):
        decoder = StreamingDecoder(codec, voice=whole.voice)
        chunks = whole.audio_codes.split(frames, dim=-1)
        streamed = torch.cat([*(decoder.push(chunk) for chunk in chunks), decoder.finish()], dim=1)
        assert (streamed[0] - audio).abs().max() <= 1e-4
    decoded = torch.cat(list(codec.decode_blocks(whole.audio_codes[0], whole.voice[0])))
    assert (decoded - audio).abs().max() <= 1e-4


@torch.no_grad()
def test_level_changes_neither_codes_nor_voice(codec: CodecModel) -> None:
    waveform = speech_like(2, 48_000)[:, None]
    plain = codec.encode(waveform)
    for decibel in (-20.0, 6.0):
        louder = codec.encode(waveform * 10 ** (decibel / 20))
        same = (louder.audio_codes == plain.audio_codes).float().mean()
        assert same >= 0.95, decibel
        assert (louder.voice - plain.voice).abs().max() < 0.2


@torch.no_grad()
def test_the_running_level_equals_its_slow_version() -> None:
    level = RunningLevel(frame_rate=96.0)
    magnitudes = torch.rand(2, 50, 4) * torch.tensor([1e-5, 1.0])[:, None, None]
    fast = level.levels(magnitudes)
    for row, loudest in enumerate([-6.5, -6.5]):
        for frame in range(50):
            past = magnitudes[row, max(0, frame + 1 - level.window) : frame + 1].double()
            power = past.square().sum() / level.window
            loudest = max(loudest - 0.1 / 96.0, float(power.log10()), -6.5)
            assert float(fast[row, frame]) == pytest.approx(loudest, abs=1e-5)


@torch.no_grad()
def test_fsq_codes_spell_the_nearest_levels() -> None:
    torch.manual_seed(0)
    levels = (5, 4, 3)
    quantizer = FSQ(FSQConfig(levels=levels, dim=6))
    latent = torch.randn(1, 40, 6) * 3
    codes = quantizer.encode(latent)
    grid = [torch.linspace(-1, 1, count) for count in levels]
    corners = list(itertools.product(*[range(count) for count in reversed(levels)]))
    for frame in range(40):
        bounded = torch.tanh(quantizer.down(latent[0, frame]))
        nearest = [int((axis - value).abs().argmin()) for axis, value in zip(grid, bounded, strict=True)]
        assert corners[int(codes[0, frame])] == tuple(reversed(nearest))
        values = torch.stack([axis[place] for axis, place in zip(grid, nearest, strict=True)])
        assert (quantizer.up(values) - quantizer.decode(codes)[0, frame]).abs().max() <= 1e-6
    assert quantizer.effective_codebook().shape == (60, 6)
    assert (quantizer(latent).latent - quantizer.decode(codes)).abs().max() <= 1e-6


@torch.no_grad()
def test_a_fresh_decoder_does_not_listen_to_the_voice() -> None:
    model = small_codec("hh-codec-tiny", exported=False, encoder=ENCODER, quantizer=QUANTIZER)
    codes = torch.arange(8)[None, None]
    one, other = (model.decode(codes, voice=value * torch.ones(1, 6)).mel for value in (-1.0, 1.0))
    assert torch.equal(one, other)


def test_a_run_starts_from_the_mel_at_the_level_of_what_is_decoded(tmp_path: Path) -> None:
    small_config("hh-codec-tiny", encoder=ENCODER, quantizer=QUANTIZER).save_pretrained(tmp_path / "codec")
    means = []
    for name, gain in (("quiet", 0.05), ("loud", 0.5)):
        data = speech_data()
        data.segments = lambda seconds, gain=gain: Louder(round(seconds * 24_000), gain)
        config = CodecTrainingConfig(
            model=str(tmp_path / "codec"),
            output=tmp_path / name,
            stages=[replace(CODES, steps=1, optimizer=OptimizerConfig(learning_rate=1e-9))],
        )
        train_codec(config, data)
        means.append(load_trained(tmp_path / name).decode(torch.arange(8)[None, None]).mel.mean().item())
    assert means[0] == pytest.approx(means[1], abs=0.05)


def test_gradients_reach_the_encoder_through_fsq_and_the_voice() -> None:
    model = voiced_codec(exported=False).train()
    waveform = speech_like(2, 24_000)
    output = model(waveform[:, None], synthesize=False, voice=model.voice_of(waveform))
    output.mel.mean().backward()
    for part in (model.encoder.embed, model.quantizer.down, model.encoder.voice_encoder.proj_out):
        assert part.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_voice_is_part_of_the_contract(codec: CodecModel, tmp_path: Path) -> None:
    codes = torch.zeros(1, 1, 5, dtype=torch.long)
    default = codec.decode(codes).audio_values
    assert torch.equal(default, codec.decode(codes, voice=torch.zeros(1, 6)).audio_values)
    assert (default - codec.decode(codes, voice=torch.ones(1, 6)).audio_values).abs().max() > 1e-5
    with pytest.raises(ValueError, match="voices of 6 numbers"):
        codec.decode(codes, voice=torch.zeros(1, 7))
    with pytest.raises(ValueError, match="voices of 0 numbers"):
        small_codec("hh-codec-tiny").decode(codes, voice=torch.zeros(1, 6))
    save_codec(codec, tmp_path / "codec")
    loaded = load_codec(tmp_path / "codec")
    assert loaded.config.fingerprint == codec.config.fingerprint
    loaded.encoder.voice_encoder.proj_out.bias.add_(0.01)
    assert fingerprint(loaded) != codec.config.fingerprint
    loaded.config.default_voice = [1.0] * 6
    assert torch.equal(
        loaded.decode(codes).audio_values, codec.decode(codes, voice=torch.ones(1, 6)).audio_values
    )


@torch.no_grad()
def test_targets_and_decoded_speech_have_one_level(codec: CodecModel) -> None:
    waveform = speech_like(2, 48_000)
    normal = codec.normalized(waveform)
    assert (codec.normalized(0.1 * waveform) - normal).abs().max() <= 1e-4
    magnitudes = codec.encoder.mel(normal).exp().square().sum(dim=2)
    window = codec.encoder.level.window
    loudest = magnitudes.unfold(1, window, 1).mean(dim=-1).amax(dim=1).sqrt()
    assert (loudest - NORMAL_LEVEL).abs().max() <= 0.05
    plain = small_codec("hh-codec-tiny")
    assert plain.normalized(waveform) is waveform
    encoder = {**SMALL_PARTS["hybrid-codec-tiny"]["encoder"], **HYBRID_MEL, "level": "running"}
    hybrid = small_codec("hybrid-codec-tiny", encoder=encoder)
    assert torch.allclose(hybrid.normalized(0.1 * waveform), hybrid.normalized(waveform), atol=1e-4)
    with pytest.raises(ValueError, match="has no voice vector"):
        small_config("hybrid-codec-tiny", encoder={**encoder, "voice": {}})
    assert codec.normalized(torch.zeros(1, 24_000)).isfinite().all()


class Louder(SpeechSegments):
    """The same segments at another level."""

    def __init__(self, samples: int, gain: float) -> None:
        super().__init__(samples)
        self.gain = gain

    def __getitem__(self, index: int) -> dict[str, Any]:
        segment = super().__getitem__(index)
        return {**segment, "waveform": self.gain * segment["waveform"]}


class TwoStretches(SpeechSegments):
    """Segments with a reference of the same speaker."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        reference = speech_like(1, 12_000, seed=index)[0]
        return {**super().__getitem__(index), "reference": reference, "reference_length": 9_000}


def test_training_takes_the_voice_from_the_reference(tmp_path: Path) -> None:
    data = speech_data(validation=True)
    data.segments = lambda seconds: TwoStretches(round(seconds * 24_000))
    starting = small_config("hh-codec-tiny", encoder=ENCODER, quantizer=QUANTIZER)
    starting.save_pretrained(tmp_path / "codec")
    stage = replace(
        CODES, losses=LossWeights(multi_scale=1.0), train=["encoder", "quantizer", "decoder", "vocoder"]
    )
    config = CodecTrainingConfig(
        model=str(tmp_path / "codec"), output=tmp_path / "run", stages=[stage], log_every=2
    )
    result = train_codec(config, data)
    assert result.finished
    trained = load_trained(tmp_path / "run")
    fresh = voiced_codec()
    assert not torch.equal(
        trained.encoder.voice_encoder.proj_out.weight, fresh.encoder.voice_encoder.proj_out.weight
    )

    step = CodecTrainingStep(voiced_codec(exported=False), SemanticObjectives())
    batch = collate([TwoStretches(6_000)[index] for index in range(2)])
    reference = (batch["reference"], batch["reference_length"])
    losses = [
        step(batch["waveform"] * gain, batch["length"], stage, reference=given).losses["mel"].item()
        for given, gain in ((reference, 1.0), (reference, 0.2), (None, 1.0))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # a fixed level is the target
    assert abs(losses[0] - losses[2]) > 1e-4
