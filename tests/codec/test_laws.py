"""The three laws of a codec: batch independence, exact lengths, nothing of training in what is exported."""

import copy

import pytest
import torch

from codec import HHCodecModel, export_codec, preset_config
from codec.presets import PRESETS
from tests.codec.small_codecs import small_codec, speech_like

LENGTHS = [72_000, 31_337, 1_000, 999, 1, 5_001, 64_000]  # samples


@pytest.fixture(params=sorted(PRESETS), scope="module")
def codec(request: pytest.FixtureRequest) -> HHCodecModel:
    return small_codec(request.param)


def padded(lengths: list[int], garbage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch whose rows carry `garbage` behind their own samples."""
    batch = speech_like(len(lengths), max(lengths))[:, None]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask[:, None], batch, garbage), mask


def near_ties(codec: HHCodecModel, latent: torch.Tensor) -> torch.Tensor:
    """(frames,) whether the two nearest codes are within 1e-4, relative."""
    distances = torch.cdist(latent, codec.effective_codebook()).square()
    first, second = distances.topk(2, largest=False).values.unbind(-1)
    return (second - first) <= 1e-4 * second


@torch.no_grad()
@pytest.mark.parametrize("garbage", [0.0, 3.0])
def test_codes_do_not_depend_on_the_batch(codec: HHCodecModel, garbage: float) -> None:
    batch, mask = padded(LENGTHS, garbage)
    together = codec.encode(batch, mask)
    exact = copy.deepcopy(codec).double()  # in float64 the law holds to rounding; in float32, up to near ties
    latents = exact.encode_to_latent(batch.double(), mask)
    hop = codec.config.hop_length
    for row, samples in enumerate(LENGTHS):
        alone = codec.encode(batch[row : row + 1, :, :samples])
        latent = exact.encode_to_latent(batch[row : row + 1, :, :samples].double()).latent[0]
        frames = -(-samples // hop)
        assert alone.audio_codes.shape == (1, 1, frames)
        assert int(together.frame_mask[row].sum()) == frames
        assert (latents.latent[row, :frames] - latent).abs().max() <= 1e-9
        differ = together.audio_codes[row, 0, :frames] != alone.audio_codes[0, 0]
        assert not (differ & ~near_ties(exact, latent)).any()


@torch.no_grad()
def test_audio_does_not_depend_on_the_batch(codec: HHCodecModel) -> None:
    frames = [60, 31, 5, 1, 17]
    size = codec.config.codebook_sizes[0]
    codes = torch.randint(0, size, (len(frames), 1, max(frames)), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    together = codec.decode(codes, mask).audio_values
    for row, length in enumerate(frames):
        alone = codec.decode(codes[row : row + 1, :, :length]).audio_values
        samples = length * codec.config.hop_length
        assert alone.shape == (1, 1, samples)
        assert alone.abs().max() > 1e-4  # not silence compared with silence
        assert (together[row, 0, :samples] - alone[0, 0]).abs().max() <= 1e-5
        assert together[row, 0, samples:].abs().sum() == 0


@torch.no_grad()
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_lengths_are_exact(preset: str) -> None:
    torch.manual_seed(0)
    codec = small_codec(preset)
    full = preset_config(preset)
    assert (
        (codec.config.hop_length, codec.config.frame_rate)
        == (full.hop_length, full.frame_rate)
        == (1000, 24.0)
    )
    for samples in (1, 999, 1_000, 1_001, 12_345):
        encoded = codec.encode(torch.randn(1, 1, samples))
        assert encoded.audio_codes.shape[-1] == -(-samples // 1000)
        assert (
            codec.decode(encoded.audio_codes).audio_values.shape[-1] == encoded.audio_codes.shape[-1] * 1000
        )


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_export_folds_what_training_needs(preset: str) -> None:
    trained = small_codec(preset, exported=False)
    exported = export_codec(trained)
    audio = speech_like(2, 30_000)[:, None]
    with torch.no_grad():
        before, after = trained.encode(audio), exported.encode(audio)
        assert torch.equal(before.audio_codes, after.audio_codes)
        difference = (
            trained.decode(before.audio_codes).audio_values - exported.decode(after.audio_codes).audio_values
        )
    assert difference.abs().max() < 1e-5
    names = exported.state_dict().keys()
    assert not [
        name for name in names if "parametrizations" in name or "frozen" in name or "transform" in name
    ]
    assert exported.state_dict()["quantizer.codebook"].shape == (64, trained.config.quantizer_config.dim)
    with pytest.raises(RuntimeError, match="folded"):
        exported(audio)


def test_group_norm_of_a_row_is_torch_group_norm() -> None:
    from codec.layers import MaskedGroupNorm

    norm = MaskedGroupNorm(4, 16)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 20, 16)
    mask = torch.arange(20) < torch.tensor([20, 7, 1])[:, None]
    masked = norm(x, mask)
    for row, length in enumerate((20, 7, 1)):
        expected = torch.nn.functional.group_norm(
            x[row : row + 1, :length].transpose(1, 2), 4, norm.weight, norm.bias, norm.eps
        )
        torch.testing.assert_close(masked[row, :length], expected[0].T, atol=1e-5, rtol=1e-5)


def test_full_presets_have_the_published_sizes() -> None:
    with torch.device("meta"):
        full = HHCodecModel(preset_config("hh-codec-24hz-vocos"))
    millions = {
        name: sum(p.numel() for p in full.get_submodule(name).parameters()) / 1e6 for name in full.PARTS
    }
    assert millions["encoder"] == pytest.approx(17.1, abs=0.5)  # published 17.1 at hop 1,024
    assert millions["decoder"] == pytest.approx(61.9, abs=3.0)  # published 61.9, and our blocks at 96 Hz
    assert millions["vocoder"] == pytest.approx(13.5, abs=0.1)
    with torch.device("meta"):
        tiny = HHCodecModel(preset_config("hh-codec-tiny"))
    exported = sum(
        p.numel() for name in ("encoder", "decoder", "vocoder") for p in tiny.get_submodule(name).parameters()
    )
    assert exported + 2048 * tiny.config.quantizer_config.dim <= 8_000_000
