"""Codecs in real time: audio in as it is recorded, codes out; codes in as they are generated, audio out.

`StreamingEncoder` and `StreamingDecoder` are exact: whatever the chunks, what comes out is what the codec gives at once
(codes equal, audio to 1e-4). They need a codec built for it (`config.streams`). Any other codec is decoded by
`ChunkedDecoder`, chunk by chunk with context on both sides and cross-faded seams: close to the whole, and it can say
how close.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codec.base import CodecModel, check_codes
from codec.loading import Codec
from codec.nn.sequences import StreamState


class StreamingEncoder:
    """Audio to codes in chunks of any size, for `batch_size` recordings that advance together.

    Attributes:
        latency_samples: what a frame waits for behind its own last sample.

    Raises ValueError for a codec that cannot stream exactly.
    """

    def __init__(self, codec: CodecModel, batch_size: int = 1) -> None:
        _check_streams(codec)
        self.codec, self.batch_size = codec, batch_size
        config: Any = codec.config
        self.latency_samples: int = config.encoder_config.lookahead_samples
        self._state = StreamState()
        self._samples = 0

    @torch.no_grad()
    def push(self, samples: Tensor) -> Tensor:
        """The next (batch_size, samples) -> the codes that are known by now, (batch_size, num_quantizers, frames)."""
        _check_rows(samples, self.batch_size, dims=2)
        self._samples += samples.shape[1]
        latent = self.codec.encoder(samples.to(self.codec.device, torch.float32), None, self._state)
        return self.codec.quantize(latent, None, self._state)

    def finish(self) -> Tensor:
        """The codes of what is left, the last frame filled with silence; then a new recording can begin."""
        self._state.final = True
        missing = -self._samples % self.codec.config.hop_length
        codes = self.push(torch.zeros(self.batch_size, missing))
        self._state, self._samples = StreamState(), 0
        return codes


class StreamingDecoder:
    """Codes to audio in chunks of any size, for `batch_size` recordings that advance together and may end one by one.

    Attributes:
        latency_samples: audio that is held back until the codes behind it are there.

    Raises ValueError for a codec that cannot stream exactly.
    """

    def __init__(self, codec: CodecModel, batch_size: int = 1, voice: Tensor | None = None) -> None:
        _check_streams(codec)
        self.codec, self.batch_size, self.voice = codec, batch_size, voice
        config: Any = codec.config
        self.latency_samples: int = (
            config.decoder_config.lookahead * config.hop_length + config.vocoder_config.lookahead_samples
        )
        self._state = StreamState()

    def push(self, audio_codes: Tensor) -> Tensor:
        """The next codes (batch_size, quantizers, frames) -> the audio settled by now, (batch_size, samples)."""
        _check_rows(audio_codes, self.batch_size, dims=3)
        return self._decode(audio_codes, self._state)

    def finish(self) -> Tensor:
        """The audio that was held back, (batch_size, samples); then new recordings can begin."""
        state, self._state = self._state, StreamState()
        if not state.memory:  # nothing was pushed
            return torch.zeros(self.batch_size, 0, device=self.codec.device)
        state.final = True
        nothing = torch.zeros(self.batch_size, self.codec.config.num_quantizers, 0, dtype=torch.long)
        return self._decode(nothing, state)

    @torch.no_grad()
    def _decode(self, audio_codes: Tensor, state: StreamState) -> Tensor:
        check_codes(audio_codes, self.codec._codebook_sizes())
        codes = audio_codes.to(self.codec.device)
        latent = self.codec.codes_to_latent(codes, None, state)
        audio = self.codec.decode_latent(latent, None, state, self.voice).audio_values
        assert audio is not None
        return audio[:, 0]


@dataclass(frozen=True)
class ChunkingError:
    """How far chunked decoding is from decoding at once."""

    largest: float  # absolute difference of two samples
    signal_to_noise: float  # dB; infinite where nothing differs


class ChunkedDecoder:
    """Codes to audio with a codec that cannot stream: chunks of `chunk_frames`, each decoded with its surroundings.

    Every chunk is decoded together with up to `context_frames` before it and `lookahead_frames` behind it, whose audio
    is thrown away, and fades into the next over one frame. Work grows accordingly.

    Attributes:
        latency_samples: audio that is held back at most: the chunk, its look-ahead and the fade.
    """

    def __init__(
        self,
        codec: Codec,
        batch_size: int = 1,
        chunk_frames: int = 12,
        context_frames: int = 48,
        lookahead_frames: int = 6,
        voice: Tensor | None = None,
    ) -> None:
        if chunk_frames < 1 or context_frames < 0 or lookahead_frames < 1:
            raise ValueError("chunk_frames and lookahead_frames are 1 or more, context_frames 0 or more")
        self.codec, self.batch_size, self.voice = codec, batch_size, voice
        self.chunk_frames, self.context_frames, self.lookahead_frames = (
            chunk_frames,
            context_frames,
            lookahead_frames,
        )
        self.latency_samples = (chunk_frames + lookahead_frames) * codec.config.hop_length
        self._start()

    def _start(self) -> None:
        self._held: Tensor | None = None  # codes from the context of the next chunk on
        self._context = 0  # frames of them that were decoded before
        self._tail: Tensor | None = None  # what the chunk before says of the first frame of the next

    def push(self, audio_codes: Tensor) -> Tensor:
        """The next codes (batch_size, quantizers, frames) -> the audio settled by now, (batch_size, samples)."""
        _check_rows(audio_codes, self.batch_size, dims=3)
        self._held = audio_codes if self._held is None else torch.cat([self._held, audio_codes], dim=-1)
        pieces = [torch.zeros(self.batch_size, 0, device=self.codec.device)]
        while self._held.shape[-1] - self._context >= self.chunk_frames + self.lookahead_frames:
            window = self._held[..., : self._context + self.chunk_frames + self.lookahead_frames]
            pieces.append(self._next(window, self.chunk_frames))
        return torch.cat(pieces, dim=1)

    def finish(self) -> Tensor:
        """The audio that was held back, (batch_size, samples); then new recordings can begin."""
        left = torch.zeros(self.batch_size, 0, device=self.codec.device)
        if self._held is not None and (frames := self._held.shape[-1] - self._context):
            left = self._next(self._held, frames)
        self._start()
        return left

    @torch.no_grad()
    def _next(self, window: Tensor, frames: int) -> Tensor:
        """Decode a window and keep the audio of `frames` frames behind its context."""
        hop = self.codec.config.hop_length
        audio = self.codec.decode(window.to(self.codec.device), voice=self.voice).audio_values[:, 0]
        kept = audio[:, self._context * hop : (self._context + frames) * hop].clone()
        if self._tail is not None:
            ramp = torch.linspace(0, 1, hop + 2, device=audio.device)[1:-1]
            kept[:, :hop] = self._tail * (1 - ramp) + kept[:, :hop] * ramp
        self._tail = audio[:, (self._context + frames) * hop :][:, :hop]
        assert self._held is not None
        done = self._context + frames
        self._context = min(self.context_frames, done)
        self._held = self._held[..., done - self._context :]
        return kept

    @torch.no_grad()
    def error(self, audio_codes: Tensor) -> ChunkingError:
        """How far this decoder's audio is from the codec's own, for codes (batch_size, quantizers, frames)."""
        whole = self.codec.decode(audio_codes.to(self.codec.device), voice=self.voice).audio_values[:, 0]
        self._start()
        difference = torch.cat([self.push(audio_codes), self.finish()], dim=1) - whole
        noise, signal = difference.square().mean().item(), whole.square().mean().item()
        ratio = torch.tensor(signal / noise).log10().item() * 10 if noise else float("inf")
        return ChunkingError(difference.abs().max().item(), ratio)


def stream_decoder(
    codec: Codec, batch_size: int = 1, voice: Tensor | None = None
) -> StreamingDecoder | ChunkedDecoder:
    """The decoder for codes that arrive bit by bit: exact where the codec streams, chunked where it does not.

    `voice` (batch_size or 1, voice_dim) is the codec's default voice unless given.
    """
    config: Any = codec.config
    if getattr(config, "streams", False):
        exact: Any = codec
        return StreamingDecoder(exact, batch_size, voice)
    return ChunkedDecoder(codec, batch_size, voice=voice)


def _check_streams(codec: CodecModel) -> None:
    if not codec.config.streams:
        raise ValueError(
            f"{codec.config.name} cannot stream exactly: encode with encode_blocks, decode with ChunkedDecoder"
        )


def _check_rows(values: Tensor, rows: int, dims: int) -> None:
    if values.ndim != dims or values.shape[0] != rows:
        raise ValueError(f"expected {rows} rows and {dims} dimensions, got {tuple(values.shape)}")
