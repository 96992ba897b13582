"""The three laws of a codec: batch independence, exact lengths, nothing of training in what is exported."""

import copy

import pytest
import torch

from codec import CodecModel, export_codec, preset_config
from codec.hybrid_codec.modeling import HybridCodecModel
from codec.loading import model_of
from codec.presets import PRESETS
from tests.codec.small_codecs import refuses_codes_out_of_range, small_codec, speech_like

LENGTHS = [48_000, 31_337, 1_000, 999, 1, 5_001, 40_000]  # samples


@pytest.fixture(params=sorted(PRESETS), scope="module")
def codec(request: pytest.FixtureRequest) -> CodecModel:
    return small_codec(request.param)


def padded(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch whose rows carry garbage behind their own samples."""
    batch = speech_like(len(lengths), max(lengths))[:, None]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask[:, None], batch, 3.0), mask


def near_ties(codec: CodecModel, latent: torch.Tensor) -> torch.Tensor:
    """(quantizers, frames) whether the two nearest codes are within 1e-4, relative, of latents (frames, dim).

    What a residual quantizer sees behind a near tie of an earlier one counts as one too.
    """
    looked_up = [(latent, codec.effective_codebook())]
    if isinstance(codec, HybridCodecModel):
        looked_up = looked_up_by_hybrid(codec, latent)
    ties = []
    for vectors, codebook in looked_up:
        distances = torch.cdist(vectors, codebook).square()
        first, second = distances.topk(2, largest=False).values.unbind(-1)
        ties.append((second - first) <= 1e-4 * second)
    return torch.stack(ties).long().cumsum(dim=0) > 0


def looked_up_by_hybrid(
    codec: HybridCodecModel, latent: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each quantizer: directions of the projected latents (frames, codebook_dim), and of the codebook's entries."""
    semantic, acoustic = codec.quantizer.semantic, codec.quantizer.acoustic
    before = semantic.quantizer.in_proj(semantic._before(latent[None], None, None)[0])
    pairs = [(before, semantic.quantizer.directions)]
    codes = codec.quantize(latent[None])
    narrow = acoustic.codebook_dim
    for index in range(len(acoustic.codebooks)):
        residual = latent - codec.codes_to_latent(codes[:, : index + 1])[0]  # what the ones before it leave
        weight = acoustic.in_proj.weight[index * narrow : (index + 1) * narrow]
        bias = acoustic.in_proj.bias[index * narrow : (index + 1) * narrow]
        # the folded bias is for the latent less the entries alone: give it back what the projections' biases took
        folded = acoustic.out_bias[index - 1] if index else torch.zeros_like(latent[0])
        pairs.append((residual @ weight.T + bias + weight @ folded, acoustic.directions[index]))
    return [(torch.nn.functional.normalize(vectors, dim=-1), entries) for vectors, entries in pairs]


@torch.no_grad()
def test_codes_do_not_depend_on_the_batch(codec: CodecModel) -> None:
    batch, mask = padded(LENGTHS)
    together = codec.encode(batch, mask)
    exact = copy.deepcopy(codec).double()  # in float64 the law holds to rounding; in float32, up to near ties
    latents = exact.encode_to_latent(batch.double(), mask)
    hop = codec.config.hop_length
    for row, samples in enumerate(LENGTHS):
        alone = codec.encode(batch[row : row + 1, :, :samples])
        latent = exact.encode_to_latent(batch[row : row + 1, :, :samples].double()).latent[0]
        frames = -(-samples // hop)
        assert alone.audio_codes.shape == (1, codec.config.num_quantizers, frames)
        assert int(together.frame_mask[row].sum()) == frames
        assert (latents.latent[row, :frames] - latent).abs().max() <= 1e-9
        differ = together.audio_codes[row, :, :frames] != alone.audio_codes[0]
        ties = near_ties(exact, latent)
        assert not (differ & ~ties).any() and ties.float().mean() < 0.05


def random_codes(codec: CodecModel, rows: int, frames: int) -> torch.Tensor:
    """(rows, quantizers, frames)."""
    generator = torch.Generator().manual_seed(1)
    sizes = codec.config.codebook_sizes
    return torch.stack([torch.randint(0, size, (rows, frames), generator=generator) for size in sizes], dim=1)


@torch.no_grad()
def test_audio_does_not_depend_on_the_batch(codec: CodecModel) -> None:
    frames = [60, 31, 5, 1, 17]
    codes = random_codes(codec, len(frames), max(frames))
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
    full, config = preset_config(preset), codec.config
    hop, rate = {"hh-codec": (1_024, 23.4375)}.get(
        preset, (960, 25.0) if preset.startswith("hybrid") else (1_000, 24.0)
    )
    assert (config.hop_length, config.frame_rate) == (full.hop_length, full.frame_rate) == (hop, rate)
    for samples in (1, hop - 1, hop, hop + 1, 12_345):
        codes = codec.encode(torch.randn(1, 1, samples)).audio_codes
        assert codes.shape == (1, config.num_quantizers, -(-samples // hop))
        assert codec.decode(codes).audio_values.shape == (1, 1, codes.shape[-1] * hop)


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
    for quantizer in range(trained.config.num_quantizers):
        before, after = (model.effective_codebook(quantizer) for model in (trained, exported))
        assert len(before) == trained.config.codebook_sizes[quantizer]
        torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    with pytest.raises(RuntimeError, match="folded"):
        exported(audio)


def test_group_norm_of_a_row_is_torch_group_norm() -> None:
    from codec.nn.blocks import MaskedGroupNorm

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
        full = model_of(preset_config("hh-codec-24hz-vocos"))
    millions = {
        name: sum(p.numel() for p in full.get_submodule(name).parameters()) / 1e6 for name in full.PARTS
    }
    assert millions["encoder"] == pytest.approx(17.1, abs=0.5)  # published 17.1 at hop 1,024
    assert millions["decoder"] == pytest.approx(61.9, abs=3.0)  # published 61.9, and our blocks at 96 Hz
    assert millions["vocoder"] == pytest.approx(13.5, abs=0.1)
    with torch.device("meta"):
        tiny = model_of(preset_config("hh-codec-tiny"))
    exported = sum(
        p.numel() for name in ("encoder", "decoder", "vocoder") for p in tiny.get_submodule(name).parameters()
    )
    assert exported + 2048 * tiny.config.quantizer_config.dim <= 8_000_000


@torch.no_grad()
def test_autocast_rounds_neither_mel_nor_waveform(codec: CodecModel) -> None:
    latent = codec.encode_to_latent(speech_like(1, 12_000)[:, None]).latent
    with torch.autocast("cpu", torch.bfloat16):
        decoded = codec.decode_latent(latent)
    for values in (decoded.audio_values, decoded.mel):
        if values is not None:
            assert values.dtype == torch.float32
            assert (values != values.bfloat16()).float().mean() > 0.9


def test_codes_out_of_range_are_an_error(codec: CodecModel) -> None:
    refuses_codes_out_of_range(codec)
