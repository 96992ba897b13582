"""Recordings of any length: streams where the codec streams, windows where it does not."""

import pytest
import torch

from codec import CodecModel
from codec.nn.sequences import StreamState, Window, join_windows, windows_over
from tests.codec.small_codecs import small_codec, speech_like

STREAMING = ["hh-codec-tiny", "hybrid-codec-tiny"]
WINDOWED = ["hh-codec-24hz-vocos", "hybrid-codec"]


@pytest.fixture(params=STREAMING, scope="module")
def streaming_codec(request: pytest.FixtureRequest) -> CodecModel:
    return small_codec(request.param)


@torch.no_grad()
@pytest.mark.parametrize("block", [250, 999, 1_000, 2_000, 7_000, 100_000])
def test_streamed_codes_are_those_of_the_whole(streaming_codec: CodecModel, block: int) -> None:
    audio = speech_like(1, 71_234)
    whole = streaming_codec.encode(audio[None]).audio_codes[0]
    streamed = streaming_codec.encode_blocks(audio[0].split(block)).audio_codes[0]
    assert torch.equal(streamed, whole)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_streamed_audio_is_that_of_the_whole(streaming_codec: CodecModel, chunk: int) -> None:
    quantizers = streaming_codec.config.num_quantizers
    codes = torch.randint(0, 32, (1, quantizers, 50), generator=torch.Generator().manual_seed(2))
    whole = streaming_codec.decode(codes).audio_values[0, 0]
    state = StreamState()
    pieces = codes.split(chunk, dim=-1)
    out = []
    for index, piece in enumerate(pieces):
        state.final = index == len(pieces) - 1
        latent = streaming_codec.codes_to_latent(piece, None, state)
        out.append(streaming_codec.decode_latent(latent, None, state).audio_values[0, 0])
    streamed = torch.cat(out)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() <= 1e-4
    assert out[0].numel() < whole.numel() or chunk >= 50  # audio leaves before the last code is in


@torch.no_grad()
def test_streaming_parts_see_no_further_than_they_say(streaming_codec: CodecModel) -> None:
    audio = speech_like(1, 48_000)
    changed = audio.clone()
    changed[:, 30_000:] += 0.1 * torch.randn(1, 18_000, generator=torch.Generator().manual_seed(0))
    first = streaming_codec.encode_to_latent(audio[None]).latent[0]
    second = streaming_codec.encode_to_latent(changed[None]).latent[0]
    moved = (first - second).abs().amax(dim=1) > 1e-6
    # 4 mel frames of 240 or 250 samples and half an STFT window: 1,375 samples at most, within two frames
    hop = streaming_codec.config.hop_length
    mel_hop = hop // 4
    assert not moved[: 30_000 // hop - 2].any() and moved[30_000 // hop :].all()

    codes = torch.zeros(1, streaming_codec.config.num_quantizers, 40, dtype=torch.long)
    other = codes.clone()
    other[..., 20:] = 5
    difference = (streaming_codec.decode(codes).audio_values - streaming_codec.decode(other).audio_values)[
        0, 0
    ].abs()
    # two frames in the decoder; two mel frames and the half window of the inverse STFT in the vocoder
    earliest = 20 * hop - 2 * hop - 2 * mel_hop - 625
    assert difference[:earliest].max() < 1e-6 and difference[earliest + hop :].max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("preset", WINDOWED)
def test_windowed_codes_do_not_depend_on_blocks_or_batch(preset: str) -> None:
    codec = small_codec(preset, chunk_seconds=2.0, overlap_seconds=0.5)
    audio = speech_like(2, 200_500)
    whole = codec.encode(audio[:1, None]).audio_codes[0]
    hop = codec.config.hop_length
    frames = -(-200_500 // hop)
    assert whole.shape == (codec.config.num_quantizers, frames)
    for block in (777, 24_000, 1_000_000):
        assert torch.equal(codec.encode_blocks(audio[0].split(block)).audio_codes[0], whole)
    mask = torch.ones(2, 200_500, dtype=torch.bool)
    mask[1, 30_000:] = False
    batched = codec.encode(audio[:, None], mask).audio_codes
    assert torch.equal(batched[0], whole)
    short = codec.encode(audio[1:, None, :30_000]).audio_codes
    assert torch.equal(batched[1, :, : short.shape[-1]], short[0])
    assert codec.decode(batched).audio_values.shape == (2, 1, frames * hop)


@torch.no_grad()
def test_windows_of_finite_sight_code_as_the_whole_does() -> None:
    """All that HybridCodec's waveform encoder and semantic stream see lies within a second: no seams."""
    codec = small_codec("hybrid-codec", chunk_seconds=4.0, overlap_seconds=1.0)
    audio = speech_like(1, 300_000)
    latent = codec.encode_to_latent(audio[None]).latent
    whole, windowed = codec.quantize(latent)[0], codec.encode_blocks([audio[0]]).audio_codes[0]
    assert (whole != windowed).float().mean() < 0.002  # near ties


def test_windows_tile_the_recording() -> None:
    window = Window(frames=10, overlap=2)
    for frames in (1, 9, 10, 11, 16, 17, 33, 100):
        audio = torch.arange(frames * 4, dtype=torch.float32)
        for block in (3, 40, 1000):
            pieces = list(windows_over(audio.split(block), window, hop_length=4))
            kept = torch.cat([p.samples[p.keep_from * 4 : p.keep_to * 4] for p in pieces])
            assert torch.equal(kept, audio)
            for piece in pieces[1:]:
                assert piece.keep_from == window.overlap
        joined = torch.cat(list(join_windows(((p.samples, p) for p in pieces), 4, fade=4)))
        torch.testing.assert_close(joined, audio)  # the same audio cross-faded with itself


@pytest.mark.parametrize("preset", WINDOWED)
def test_modules_that_cannot_stream_say_so(preset: str) -> None:
    codec = small_codec(preset)
    state = StreamState()
    with pytest.raises(ValueError, match="cannot stream"):
        codec.encoder(torch.zeros(1, 2_000), None, state)
