"""The k-means codec: the laws of a codec, Lloyd's algorithm against a slow one, and its way through files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from codec import CodecInfo, UserError, load_codec, save_codec
from codec.kmeans_codec.fitting import fit_kmeans, kmeans_codec, patches
from codec.kmeans_codec.modeling import KMeansCodecModel
from tests.codec.small_codecs import small_codec, speech_like

LENGTHS = [48_000, 31_337, 1_000, 999, 1, 5_001]  # samples


@pytest.fixture(scope="module")
def codec() -> KMeansCodecModel:
    """48 centroids of synthetic speech at 24 Hz, through an untrained vocoder."""
    model = kmeans_codec(small_codec("hh-codec-tiny"), codebook_size=48)
    rows = patches(model, speech_like(6, 48_000, seed=3))
    model.quantizer.codebook.copy_(fit_kmeans(rows, 48).centroids)
    return model


def test_codes_and_audio_do_not_depend_on_the_batch(codec: KMeansCodecModel) -> None:
    batch = speech_like(len(LENGTHS), max(LENGTHS))[:, None]
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    together = codec.encode(torch.where(mask[:, None], batch, 3.0), mask)  # garbage behind the rows
    with torch.no_grad():
        audio = codec.decode(together.audio_codes, together.frame_mask).audio_values
    for row, samples in enumerate(LENGTHS):
        alone = codec.encode(batch[row : row + 1, :, :samples]).audio_codes
        frames = -(-samples // 1_000)
        assert alone.shape == (1, 1, frames) and int(together.frame_mask[row].sum()) == frames
        assert torch.equal(together.audio_codes[row, :, :frames], alone[0])
        with torch.no_grad():
            decoded = codec.decode(alone).audio_values
        assert decoded.shape == (1, 1, frames * 1_000)
        assert (audio[row, 0, : frames * 1_000] - decoded[0, 0]).abs().max() <= 1e-5


def test_blocks_of_any_size_give_the_same(codec: KMeansCodecModel) -> None:
    waveform = speech_like(1, 30_500)[0]
    whole = codec.encode(waveform[None, None]).audio_codes[0]
    assert torch.equal(codec.encode_blocks(waveform.split(777)).audio_codes[0], whole)
    audio = torch.cat(list(codec.decode_blocks(whole)))
    assert (audio - codec.decode(whole[None]).audio_values[0, 0]).abs().max() <= 1e-4


@pytest.mark.parametrize("stride, rate", [(2, 48.0), (4, 24.0), (8, 12.0)])
def test_frame_rate_and_size_are_chosen(stride: int, rate: float) -> None:
    model = kmeans_codec(small_codec("hh-codec-tiny"), codebook_size=32, stride=stride, name="patches")
    info = CodecInfo.of(model)
    assert (info.frame_rate, info.codebook_sizes, info.num_quantizers) == (rate, (32,), 1)
    assert model.encode(torch.randn(1, 1, 24_000)).audio_codes.shape == (1, 1, int(rate))


def test_the_mel_is_that_of_the_centroids(codec: KMeansCodecModel) -> None:
    codes = torch.tensor([[[5, 0, 31]]])
    mel = codec.decode(codes).mel
    expected = codec.effective_codebook()[codes[0, 0]].reshape(12, 100) - 5.9
    torch.testing.assert_close(mel[0], expected)
    true = codec.encoder.mel(speech_like(1, 12_000)) + 0.0  # (1, 48, 100)
    latent = codec.encode_to_latent(speech_like(1, 12_000)[:, None]).latent
    torch.testing.assert_close(codec.decoder(latent), true, atol=1e-5, rtol=0)


def test_assignment_is_that_of_a_slow_search_and_of_scikit_learn(codec: KMeansCodecModel) -> None:
    waveform = speech_like(1, 200_000, seed=9)
    latent = codec.encode_to_latent(waveform[:, None]).latent[0].double().numpy()
    codes = codec.encode(waveform[:, None]).audio_codes[0, 0].numpy()
    centroids = codec.effective_codebook().double().numpy()
    distances = ((latent[:, None] - centroids[None]) ** 2).sum(-1)
    assert np.array_equal(distances.argmin(1), codes)
    cluster = pytest.importorskip("sklearn.cluster")
    theirs = cluster.KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(latent[:100])
    theirs.cluster_centers_ = centroids
    assert np.array_equal(theirs.predict(latent), codes)


def test_lloyds_algorithm_finds_planted_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(20, 8, generator=generator)
    rows = centres.repeat(100, 1) + 0.1 * torch.randn(2_000, 8, generator=generator)
    fit = fit_kmeans(rows, 20)
    nearest = torch.cdist(centres, fit.centroids).min(dim=1)
    assert nearest.values.max() < 0.1 and len(set(nearest.indices.tolist())) == 20
    assert fit.distance == pytest.approx(8 * 0.1**2, rel=0.1)
    again = fit_kmeans(rows, 20)
    assert torch.equal(fit.centroids, again.centroids)


def test_every_code_is_used_where_rows_differ_and_equal_rows_do_no_harm() -> None:
    rows = torch.cat([torch.zeros(500, 4), torch.randn(60, 4)])
    fit = fit_kmeans(rows, 30)
    assert torch.cdist(rows, fit.centroids).argmin(dim=1).unique().numel() == 30
    same = fit_kmeans(torch.ones(10, 3), 4)
    assert torch.equal(same.centroids, torch.ones(4, 3)) and same.distance == 0.0
    with pytest.raises(UserError, match="3 frames are too few for 4 codes"):
        fit_kmeans(torch.ones(3, 3), 4)


def test_it_is_saved_and_loaded_like_any_codec(codec: KMeansCodecModel, tmp_path: Path) -> None:
    exported = save_codec(codec, tmp_path / "kmeans")
    loaded = load_codec(tmp_path / "kmeans")
    info = CodecInfo.of(loaded)
    assert info.fingerprint == exported.config.fingerprint and info.name == "kmeans"
    audio = speech_like(2, 30_000)[:, None]
    codes = codec.encode(audio).audio_codes
    assert torch.equal(codes, loaded.encode(audio).audio_codes)
    torch.testing.assert_close(codec.decode(codes).audio_values, loaded.decode(codes).audio_values)
    moved = kmeans_codec(small_codec("hh-codec-tiny", seed=1), codebook_size=48)  # another vocoder
    moved.quantizer.codebook.copy_(codec.quantizer.codebook)
    assert save_codec(moved, tmp_path / "moved").config.fingerprint == info.fingerprint
    moved.quantizer.codebook[0] += 1.0
    assert save_codec(moved, tmp_path / "other").config.fingerprint != info.fingerprint


def test_a_vocoder_that_cannot_be_borrowed() -> None:
    with pytest.raises(UserError, match="alignment 'same'"):
        kmeans_codec(small_codec("hh-codec-24hz-vocos"))
    with pytest.raises(UserError, match="has no vocoder"):
        kmeans_codec(small_codec("hybrid-codec"))
