"""Recordings of any length: streams where the codec streams, windows where it does not."""

import pytest
import torch

from codec import HHCodecModel
from codec.streaming import StreamState
from codec.windows import Window, join_windows, windows_over
from tests.codec.small_codecs import small_codec, speech_like


@pytest.fixture(scope="module")
def streaming_codec() -> HHCodecModel:
    return small_codec("hh-codec-tiny")


@torch.no_grad()
@pytest.mark.parametrize("block", [250, 999, 1_000, 2_000, 7_000, 100_000])
def test_streamed_codes_are_those_of_the_whole(streaming_codec: HHCodecModel, block: int) -> None:
    audio = speech_like(1, 71_234)
    whole = streaming_codec.encode(audio[None]).audio_codes[0]
    streamed = streaming_codec.encode_blocks(audio[0].split(block))
    assert torch.equal(streamed, whole)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_streamed_audio_is_that_of_the_whole(streaming_codec: HHCodecModel, chunk: int) -> None:
    codes = torch.randint(0, 64, (1, 1, 50), generator=torch.Generator().manual_seed(2))
    whole = streaming_codec.decode(codes).audio_values[0, 0]
    state = StreamState()
    pieces = codes.split(chunk, dim=-1)
    out = []
    for index, piece in enumerate(pieces):
        state.final = index == len(pieces) - 1
        mel = streaming_codec.decoder(streaming_codec.codes_to_latent(piece), None, state)
        out.append(streaming_codec.vocoder(mel, None, None, state)[0])
    streamed = torch.cat(out)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() <= 1e-4
    assert out[0].numel() < whole.numel() or chunk >= 50  # audio leaves before the last code is in


@torch.no_grad()
def test_streaming_parts_see_no_further_than_they_say(streaming_codec: HHCodecModel) -> None:
    audio = speech_like(1, 48_000)
    changed = audio.clone()
    changed[:, 30_000:] += 0.1 * torch.randn(1, 18_000, generator=torch.Generator().manual_seed(0))
    first = streaming_codec.encode_to_latent(audio[None]).latent[0]
    second = streaming_codec.encode_to_latent(changed[None]).latent[0]
    moved = (first - second).abs().amax(dim=1) > 1e-6
    # 4 mel frames of 250 samples and half an STFT window of 375: 1,375 samples, within two frames
    assert not moved[:28].any() and moved[30:].all()

    codes = torch.zeros(1, 1, 40, dtype=torch.long)
    other = codes.clone()
    other[..., 20:] = 5
    difference = (streaming_codec.decode(codes).audio_values - streaming_codec.decode(other).audio_values)[
        0, 0
    ].abs()
    # two frames in the decoder; two mel frames and the half window of the inverse STFT in the vocoder
    earliest = 20_000 - 2 * 1_000 - 2 * 250 - 625
    assert difference[:earliest].max() < 1e-6 and difference[earliest + 1_000 :].max() > 1e-4


@torch.no_grad()
def test_windowed_codes_do_not_depend_on_blocks_or_batch() -> None:
    codec = small_codec("hh-codec-24hz-vocos", chunk_seconds=2.0, overlap_seconds=0.5)
    audio = speech_like(2, 200_500)
    whole = codec.encode(audio[:1, None]).audio_codes[0]
    assert whole.shape == (1, 201)
    for block in (777, 24_000, 1_000_000):
        assert torch.equal(codec.encode_blocks(audio[0].split(block)), whole)
    mask = torch.ones(2, 200_500, dtype=torch.bool)
    mask[1, 30_000:] = False
    batched = codec.encode(audio[:, None], mask).audio_codes
    assert torch.equal(batched[0], whole)
    short = codec.encode(audio[1:, None, :30_000]).audio_codes
    assert torch.equal(batched[1, :, :30], short[0])
    assert codec.decode(batched).audio_values.shape == (2, 1, 201_000)


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


def test_modules_that_cannot_stream_say_so() -> None:
    codec = small_codec("hh-codec-24hz-vocos")
    state = StreamState()
    with pytest.raises(ValueError, match="cannot stream"):
        codec.encoder(torch.zeros(1, 2_000), None, state)
