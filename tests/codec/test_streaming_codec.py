"""Streams in chunks of any size beside the whole; codecs that cannot stream, chunked with context."""

import pytest
import torch

from codec import CodecModel, UserError
from codec.streaming_codec import ChunkedDecoder, StreamingDecoder, StreamingEncoder, stream_decoder
from tests.codec.small_codecs import small_codec, speech_like

STREAMING = ["hh-codec-tiny", "hh-codec-24hz-streaming", "hybrid-codec-tiny"]
CHUNKS = [1, 2, 3, 7, 1000]


@pytest.fixture(scope="module", params=STREAMING)
def codec(request: pytest.FixtureRequest) -> CodecModel:
    return small_codec(request.param)


def random_codes(codec: CodecModel, rows: int, frames: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(2)
    return torch.stack(
        [torch.randint(0, size, (rows, frames), generator=random) for size in codec.config.codebook_sizes],
        dim=1,
    )


@torch.no_grad()
def test_codes_of_a_stream_are_those_of_the_whole(codec: CodecModel) -> None:
    hop = codec.config.hop_length
    audio = speech_like(2, 31 * hop + 234)
    whole = codec.encode(audio[:, None]).audio_codes
    assert whole.unique().numel() > 5
    encoder = StreamingEncoder(codec, batch_size=2)
    for size in [*(frames * hop for frames in CHUNKS), 77, 1_999]:
        for _ in range(2 if size == hop else 1):  # the second time: nothing is left of the first
            streamed = [encoder.push(chunk) for chunk in audio.split(size, dim=1)] + [encoder.finish()]
            assert torch.equal(torch.cat(streamed, dim=-1), whole), size


@torch.no_grad()
def test_audio_of_a_stream_is_that_of_the_whole(codec: CodecModel) -> None:
    codes = random_codes(codec, rows=2, frames=40)
    whole = codec.decode(codes).audio_values[:, 0]
    decoder = StreamingDecoder(codec, batch_size=2)
    for size in CHUNKS:
        streamed = [decoder.push(chunk) for chunk in codes.split(size, dim=-1)] + [decoder.finish()]
        joined = torch.cat(streamed, dim=1)
        assert joined.shape == whole.shape
        assert (joined - whole).abs().max() <= 1e-4, size


@torch.no_grad()
def test_streams_wait_for_what_they_say_and_no_longer(codec: CodecModel) -> None:
    hop = codec.config.hop_length
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    needed = 5 * hop + encoder.latency_samples
    audio = speech_like(1, needed)
    assert encoder.push(audio[:, : needed - 1]).shape[-1] == 4
    assert encoder.push(audio[:, needed - 1 :]).shape[-1] == 1
    frames = 20
    held = frames * hop - decoder.push(random_codes(codec, 1, frames)).shape[1]
    assert held == decoder.latency_samples < 3.1 * hop


def test_an_empty_stream_is_no_audio_and_no_codes(codec: CodecModel) -> None:
    assert StreamingEncoder(codec).finish().shape == (1, codec.config.num_quantizers, 0)
    assert StreamingDecoder(codec).finish().shape == (1, 0)
    with pytest.raises(ValueError, match="expected 1 rows and 3 dimensions"):
        StreamingDecoder(codec).push(random_codes(codec, 2, 3))


@torch.no_grad()
def test_codes_out_of_range_are_an_error(codec: CodecModel) -> None:
    codes = random_codes(codec, 1, 3)
    codes[0, 0, 1] = codec.config.codebook_sizes[0]
    with pytest.raises(UserError, match="frame 1"):
        StreamingDecoder(codec).push(codes)


def test_other_codecs_are_decoded_in_chunks_with_context() -> None:
    """Attention and norms over the utterance never see the same twice, so it is close, and closer with more context."""
    codec = small_codec("hh-codec-24hz-vocos")
    with pytest.raises(ValueError, match="small-hh-codec-24hz-vocos cannot stream exactly"):
        StreamingDecoder(codec)
    codes = random_codes(codec, rows=2, frames=90)
    whole = codec.decode(codes).audio_values[:, 0]
    decoder = stream_decoder(codec, batch_size=2)
    assert isinstance(decoder, ChunkedDecoder) and decoder.latency_samples == 18_000
    for size in (1, 7, 90):
        pieces = [decoder.push(chunk) for chunk in codes.split(size, dim=-1)]
        held = 90_000 - sum(piece.shape[1] for piece in pieces)
        assert held <= decoder.latency_samples
        joined = torch.cat([*pieces, decoder.finish()], dim=1)
        assert joined.shape == whole.shape
        error = decoder.error(codes)
        assert error.largest == pytest.approx((joined - whole).abs().max().item(), rel=1e-3)
    assert error.signal_to_noise > 0
    wide = ChunkedDecoder(codec, 2, chunk_frames=12, context_frames=78, lookahead_frames=60)
    assert wide.error(codes).signal_to_noise > error.signal_to_noise + 3
    exact = ChunkedDecoder(small_codec("hh-codec-tiny"), 1, context_frames=60, lookahead_frames=12)
    assert exact.error(codes[:1] % 64).largest < 1e-4
