"""What all codecs of this project do alike: their results, batches, recordings of any length, freezing."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from codec.configuration import CodecConfig
from codec.foundation import UserError
from codec.nn.blocks import init_layer
from codec.nn.kernels import at_least_float32
from codec.nn.sequences import (
    StreamState,
    Window,
    join_windows,
    lengths_from_mask,
    mask_from_lengths,
    windows_over,
)
from codec.vocoders.bigvgan import BigVGAN, BigVGANConfig
from codec.vocoders.vocos import Vocos, VocosConfig

ALWAYS_SET: Any = None  # ModelOutput insists on defaults; no output leaves a field with this one unset


@dataclass
class CodecEncoderOutput(ModelOutput):
    """What `encode` gives."""

    audio_codes: Tensor = ALWAYS_SET  # (batch, num_quantizers, frames) int64
    frame_mask: Tensor = ALWAYS_SET  # (batch, frames) bool, True for a row's own frames
    voice: Tensor | None = None  # (batch, voice_dim), who speaks; None for a codec without a voice vector


@dataclass
class CodecLatentOutput(ModelOutput):
    """What `encode_to_latent` gives."""

    latent: Tensor = ALWAYS_SET  # (batch, frames, dim) before the quantizer
    frame_mask: Tensor = ALWAYS_SET  # (batch, frames) bool


@dataclass
class CodecDecoderOutput(ModelOutput):
    """What `decode` gives."""

    audio_values: Tensor = ALWAYS_SET  # (batch, 1, frames * hop_length)
    # (batch, mel frames, n_mels) natural-log mel, as the vocoder expects it; None where audio was joined from windows
    # or the decoder makes the waveform without a mel between
    mel: Tensor | None = None


@dataclass
class CodecOutput(ModelOutput):
    """What a training pass gives; a pass through some of the parts leaves the others' fields None."""

    frame_mask: Tensor = ALWAYS_SET  # (batch, frames)
    audio_values: Tensor | None = None  # (batch, 1, frames * hop_length)
    mel: Tensor | None = None  # (batch, mel frames, n_mels) of the decoder
    audio_codes: Tensor | None = None  # (batch, num_quantizers, frames)
    quantized: Tensor | None = None  # (batch, frames, dim), of the first quantizer, for distillation
    vq_loss: Tensor | None = None  # scalar
    commitment: Tensor | None = None  # scalar: mean squared distance of latent and code, first quantizer


Vocoder: TypeAlias = Vocos | BigVGAN

DRAWS = 3  # random numbers that a row of a training batch comes with, for codecs that draw
UNSETTLED_FRAMES = 8  # at a row's start, where the encoder's convolutions see its padding: not for statistics
STREAM_SECONDS = 10.0  # of audio in one step where a recording of any length is coded: bounds the memory


class CodecModel(PreTrainedModel):
    """Encoder -> quantizer -> decoder (-> vocoder), each a submodule of that name.

    Three laws hold: a row's codes and audio do not depend on the rest of its batch; a recording of S samples has
    ceil(S / hop_length) frames and T frames decode to T * hop_length samples; an exported model holds nothing that
    only training needs.

    A subclass says how latents become codes and codes sound, and what an exported model holds.
    """

    config_class: type[CodecConfig] = CodecConfig
    config: CodecConfig
    main_input_name = "input_values"
    input_modalities = "audio"
    # modules of several classes, alike in the methods that are called here
    encoder: Any
    quantizer: Any
    decoder: Any  # to the vocoder's mel, or where there is none to the waveform
    vocoder: Any

    @property
    def PARTS(self) -> tuple[str, ...]:
        """Names of the parts that can be frozen, and taken from elsewhere."""
        return self.config.parts

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in `transformers`, but in float32 unless told otherwise, whatever the weights are stored in.

        Codes come from nearest neighbours: in 16 bits they would differ.
        """
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        return super().from_pretrained(*args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        init_layer(module)

    # -- what a subclass defines ------------------------------------------------------------------------------------

    @abstractmethod
    def quantize(
        self, latent: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, frames, dim) -> codes (batch, num_quantizers, frames) int64."""

    @abstractmethod
    def codes_to_latent(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """Codes (batch, num_quantizers or fewer, frames) -> latent (batch, frames, dim)."""

    @abstractmethod
    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        synthesize: bool = True,
        total_frames: Tensor | float | None = None,
        draws: Tensor | None = None,
    ) -> CodecOutput:
        """One training pass in one window; `draws` (batch, DRAWS) from [0, 1) decide what is drawn for each row."""

    @abstractmethod
    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, dim): the vectors that the codes of `quantizer` stand for."""

    @abstractmethod
    def folded(self) -> dict[str, Tensor]:
        """The tensors that only an exported model has: weights with their norm, codebooks with their transform."""

    def _codebook_sizes(self) -> Sequence[int]:
        """Of all quantizers, in use or not."""
        return self.config.codebook_sizes

    def use_quantizers(self, count: int | None) -> None:
        """Let `encode` give the codes of the first `count` quantizers only; of all for None.

        Raises ValueError for more than there are.
        """
        if count not in (None, self.config.num_quantizers):
            raise ValueError(f"{self.config.name} has {self.config.num_quantizers} quantizer, not {count}")

    @torch.no_grad()
    def settled_latent(self, latent: Tensor, frame_mask: Tensor, draws: Tensor | None = None) -> Tensor:
        """The decoder's input while encoder and quantizer are frozen: (batch, frames, dim) quantized, no gradients."""
        return self.codes_to_latent(self.quantize(latent, frame_mask), frame_mask)

    def normalized(self, waveform: Tensor) -> Tensor:
        """(batch, samples) -> the same as loud as all that the decoder says, if the codec does not keep the level."""
        encoder = getattr(self.encoder, "normalized", None)
        return waveform if encoder is None else encoder(waveform)

    def voice_of(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Who speaks, from the first seconds, with gradients: (batch, samples) -> (batch, voice_dim).

        `lengths` (batch,): each row's own samples. Raises ValueError for a codec without a voice vector.
        """
        if not self.config.voice_dim:
            raise ValueError(f"{self.config.name} has no voice vector")
        return self.encoder.voice_of(waveform[:, : self.config.voice_samples], lengths)

    def _calibrate_quantizer(self, latent: Tensor) -> None:
        """Start the quantizer from data: the latents (frames, dim) of one batch."""

    # -- waveform to codes ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, input_values: Tensor, padding_mask: Tensor | None = None) -> CodecEncoderOutput:
        """Code a batch: (batch, 1, samples), mask (batch, samples) -> codes (batch, num_quantizers, frames), mask.

        The mask is true (or 1) for a row's own samples, a prefix. Codes beyond a row's own frames are 0. A row longer
        than the config's `chunk_seconds` is coded in windows, by itself. A codec with a voice vector also gives each
        row's voice.
        """
        waveform, lengths = self._rows(input_values, padding_mask)
        frame_mask = mask_from_lengths(lengths, waveform.shape[1] // self.config.hop_length)
        window = self.config.window
        if window is None or frame_mask.shape[1] <= window.frames:
            # rows of one length need no masks, and an LSTM no packing: the same latent, sooner
            needed = None if padding_mask is None or bool(frame_mask.all()) else frame_mask
            codes = self.quantize(self.encoder(waveform, needed), needed)
        else:
            batch, frames = frame_mask.shape
            codes = waveform.new_zeros(batch, self.config.num_quantizers, frames, dtype=torch.long)
            for row, own in enumerate(lengths.tolist()):
                samples = waveform[row, : own * self.config.hop_length]
                codes[row, :, :own] = self.encode_blocks([samples]).audio_codes[0]
        return CodecEncoderOutput(
            audio_codes=codes.masked_fill(~frame_mask[:, None], 0),
            frame_mask=frame_mask,
            voice=self.voice_of(waveform, lengths * self.config.hop_length)
            if self.config.voice_dim
            else None,
        )

    def encode_to_latent(self, input_values: Tensor, padding_mask: Tensor | None = None) -> CodecLatentOutput:
        """The encoder alone, in one window: (batch, 1, samples) -> latent (batch, frames, dim), frame mask."""
        waveform, lengths = self._rows(input_values, padding_mask)
        frame_mask = mask_from_lengths(lengths, waveform.shape[1] // self.config.hop_length)
        return CodecLatentOutput(latent=self.encoder(waveform, frame_mask), frame_mask=frame_mask)

    @torch.no_grad()
    def encode_blocks(self, blocks: Iterable[Tensor]) -> CodecEncoderOutput:
        """Code one recording that comes in blocks (samples,) of any size, in bounded memory: a batch of one row.

        The result is that of `encode` on the whole, and does not depend on how the recording is cut into blocks.
        """
        window, hop = self.config.window, self.config.hop_length
        beginning = _Beginning(blocks, self.config.voice_samples)
        moved = (block.to(self.device, torch.float32) for block in beginning)
        if window is None:
            codes = self._encode_stream(moved)
        else:
            pieces = [
                self.quantize(self.encoder(self._pad_to_hop(piece.samples[None])))[
                    ..., piece.keep_from : piece.keep_to
                ]
                for piece in windows_over(moved, window, hop)
            ]
            nothing = torch.zeros(1, self.config.num_quantizers, 0, dtype=torch.long, device=self.device)
            codes = torch.cat([nothing, *pieces], dim=2)
        voice = None
        if self.config.voice_dim:
            voice = self.voice_of(self._pad_to_hop(beginning.samples[None]).to(self.device, torch.float32))
        mask = torch.ones(1, codes.shape[2], dtype=torch.bool, device=codes.device)
        return CodecEncoderOutput(audio_codes=codes, frame_mask=mask, voice=voice)

    def _encode_stream(self, blocks: Iterable[Tensor]) -> Tensor:
        """Blocks (samples,) -> codes (1, quantizers, frames)."""
        state = StreamState()
        codes = []
        step = int(STREAM_SECONDS * self.config.frame_rate) * self.config.hop_length
        samples = 0
        for block in blocks:
            for piece in block.split(step):
                samples += piece.numel()
                codes.append(self.quantize(self.encoder(piece[None], None, state), None, state))
        state.final = True
        missing = torch.zeros(1, -samples % self.config.hop_length, device=self.device)
        codes.append(self.quantize(self.encoder(missing, None, state), None, state))
        return torch.cat(codes, dim=2)

    # -- codes to waveform ------------------------------------------------------------------------------------------

    def decode(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, voice: Tensor | None = None
    ) -> CodecDecoderOutput:
        """Codes (batch, quantizers, frames), mask (batch, frames) -> audio (batch, 1, frames * hop_length).

        The quantizers may be the first few; audio is zero behind a row's own frames. Rows longer than the config's
        `chunk_seconds` are decoded in windows, each row by itself; `mel` is then None. `voice` (batch, voice_dim) is
        the config's default voice unless given. Raises ValueError for the voice of another codec,
        UserError for what are no codes of this one.
        """
        check_codes(audio_codes, self._codebook_sizes())
        window = self.config.window
        if window is not None and audio_codes.shape[-1] > window.frames:
            return self._decode_in_windows(audio_codes, frame_mask, voice)
        return self.decode_latent(self.codes_to_latent(audio_codes, frame_mask), frame_mask, None, voice)

    def decode_latent(
        self,
        latent: Tensor,
        frame_mask: Tensor | None = None,
        state: StreamState | None = None,
        voice: Tensor | None = None,
    ) -> CodecDecoderOutput:
        """Quantized latent (batch, frames, dim) -> mel and audio, in one window, or the next chunk of a stream."""
        mel = self.decode_mel(latent, frame_mask, state, voice)
        if state is not None:
            return CodecDecoderOutput(audio_values=self.vocoder(mel, None, None, state)[:, None], mel=mel)
        return CodecDecoderOutput(audio_values=self.vocode(mel, frame_mask, latent.shape[1]), mel=mel)

    def decode_mel(
        self, latent: Tensor, frame_mask: Tensor | None, state: StreamState | None, voice: Tensor | None
    ) -> Tensor:
        """Quantized latent (batch, frames, dim), voice (batch or 1, voice_dim) -> mel (batch, mel frames, n_mels)."""
        dim = self.config.voice_dim
        if voice is not None and voice.shape not in ((len(latent), dim), (1, dim)):
            raise ValueError(
                f"{self.config.name} has voices of {dim} numbers: got a voice of shape {tuple(voice.shape)}"
            )
        if not dim:
            return self.decoder(latent, frame_mask, state)
        if voice is None:
            default = self.config.default_voice
            voice = latent.new_zeros(1, dim) if default is None else latent.new_tensor(default)[None]
        return self.decoder(latent, frame_mask, state, voice.to(latent))

    def vocode(self, mel: Tensor, frame_mask: Tensor | None, frames: int) -> Tensor:
        """Mel (batch, mel frames, n_mels) of `frames` codec frames -> audio (batch, 1, frames * hop_length)."""
        mel_mask = None if frame_mask is None else self.decoder.mel_mask(frame_mask)
        waveform = self.vocoder(mel, frames * self.config.hop_length, mel_mask)
        if frame_mask is not None:
            waveform = waveform * frame_mask.repeat_interleave(self.config.hop_length, dim=1)
        return waveform[:, None]

    @torch.no_grad()
    def decode_blocks(self, audio_codes: Tensor, voice: Tensor | None = None) -> Iterator[Tensor]:
        """Decode one recording of any length in bounded memory: codes (quantizers, frames) -> blocks (samples,).

        `voice` (voice_dim,) is the config's default voice unless given. Raises UserError for what are no codes of this
        codec.
        """
        check_codes(audio_codes[None], self._codebook_sizes())
        codes = audio_codes[None].to(self.device)  # (1, quantizers, frames)
        voice = None if voice is None else voice[None]
        window = self.config.window
        if window is not None:
            yield from self._decode_windows(codes, window, voice)
            return
        state = StreamState()
        pieces = codes.split(int(STREAM_SECONDS * self.config.frame_rate), dim=-1)
        for index, piece in enumerate(pieces):
            state.final = index == len(pieces) - 1
            latent = self.codes_to_latent(piece, None, state)
            yield self.decode_latent(latent, None, state, voice).audio_values[0, 0]

    def _decode_in_windows(
        self, audio_codes: Tensor, frame_mask: Tensor | None, voice: Tensor | None
    ) -> CodecDecoderOutput:
        batch, _, frames = audio_codes.shape
        audio = torch.zeros(batch, 1, frames * self.config.hop_length, device=audio_codes.device)
        lengths = [frames] * batch if frame_mask is None else lengths_from_mask(frame_mask).tolist()
        for row, length in enumerate(lengths):
            position = 0
            own = None if voice is None else voice[row % len(voice)]
            for block in self.decode_blocks(audio_codes[row, :, :length], own):
                audio[row, 0, position : position + block.numel()] = block
                position += block.numel()
        return CodecDecoderOutput(audio_values=audio)

    def _decode_windows(self, codes: Tensor, window: Window, voice: Tensor | None) -> Iterator[Tensor]:
        """Windows with context, cross-faded over one frame where they meet."""
        hop = self.config.hop_length
        positions = torch.arange(codes.shape[-1], device=codes.device)
        decoded = (
            (
                self.decode_latent(
                    self.codes_to_latent(codes[..., piece.samples]), None, None, voice
                ).audio_values[0, 0],
                piece,
            )
            for piece in windows_over([positions], window, 1)
        )
        yield from join_windows(decoded, hop, fade=hop)

    # -- training ---------------------------------------------------------------------------------------------------

    def freeze(self, parts: Iterable[str]) -> None:
        """Freeze exactly the named parts (of `PARTS`): no gradients, evaluation mode for their dropout."""
        frozen = set(parts)
        if unknown := frozen - set(self.PARTS):
            raise ValueError(f"no part {', '.join(sorted(unknown))}; the parts are {', '.join(self.PARTS)}")
        for name in self.PARTS:
            part = self.get_submodule(name)
            part.requires_grad_(name not in frozen)
            part.train(name not in frozen and self.training)

    @torch.no_grad()
    def calibrate(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        parts: Collection[str] = ("encoder", "quantizer"),
        mel: Tensor | None = None,
    ) -> None:
        """Start from one batch, (batch, 1, samples), where learning can begin; before training only.

        Every layer of the encoder is scaled, its output to deviation 1/sqrt(dim); the quantizer is put there; a decoder
        with a mel starts from the mean of `mel` (batch, mel frames, n_mels). Only `parts` that have random weights:
        without it all frames fall on one code.
        """
        waveform, lengths = self._rows(input_values, padding_mask)
        mask = mask_from_lengths(lengths, waveform.shape[1] // self.config.hop_length)
        settled = mask & (torch.arange(mask.shape[1], device=mask.device) >= UNSETTLED_FRAMES)
        settled = settled if settled.sum() > 1 else mask  # all rows are that short
        if "encoder" in parts:
            standardize_layers(self.encoder, waveform, mask, settled)
            output = self.encoder(waveform, mask)
            standardize(self.encoder.output_layer, output[settled], output.shape[-1] ** -0.5)
        latent = self.encoder(waveform, mask)
        if "quantizer" in parts:
            self._calibrate_quantizer(latent[settled])
        if "decoder" in parts and mel is not None:
            drawn = self.decode_mel(self.codes_to_latent(self.quantize(latent, mask), mask), mask, None, None)
            own = self.decoder.mel_mask(mask)
            missing = mel[own].mean(dim=0) - drawn[own].mean(dim=0)
            self.decoder.mel_bias.add_(missing / self.decoder.config.mel_std)

    # -- shapes -----------------------------------------------------------------------------------------------------

    def _pad_to_hop(self, waveform: Tensor) -> Tensor:
        return F.pad(waveform, (0, -waveform.shape[-1] % self.config.hop_length))

    def _rows(self, input_values: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Waveform (batch, samples in whole hops), zero beyond each row, and each row's frames."""
        if input_values.ndim != 3 or input_values.shape[1] != 1:
            raise ValueError(
                f"expected input_values of shape (batch, 1, samples), got {tuple(input_values.shape)}"
            )
        waveform = at_least_float32(input_values[:, 0])
        batch, samples = waveform.shape
        lengths = torch.full((batch,), samples, device=waveform.device)
        if padding_mask is not None:
            waveform = waveform.masked_fill(~padding_mask.bool(), 0.0)
            lengths = padding_mask.long().sum(dim=1)
        hop = self.config.hop_length
        return self._pad_to_hop(waveform), (lengths + hop - 1) // hop


class _Beginning:
    """Blocks of a recording as they come; keeps the first `count` samples."""

    def __init__(self, blocks: Iterable[Tensor], count: int) -> None:
        self._blocks, self._count = blocks, count
        self.samples = torch.zeros(0)

    def __iter__(self) -> Iterator[Tensor]:
        for block in self._blocks:
            if missing := self._count - self.samples.numel():
                self.samples = torch.cat([self.samples.to(block), block[:missing]])
            yield block


class SingleCodebookModel(CodecModel):
    """A codec whose frames are one code each: its quantizer takes latents to codes (batch, frames), and back."""

    def quantize(
        self, latent: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, frames, dim) -> codes (batch, 1, frames) int64."""
        return self.quantizer.encode(latent)[:, None]

    def codes_to_latent(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """Codes (batch, 1, frames) -> latent (batch, frames, dim)."""
        return self.quantizer.decode(audio_codes[:, 0])


def check_codes(audio_codes: Tensor, codebook_sizes: Sequence[int]) -> None:
    """Raise UserError unless (batch, quantizers, frames) are codes of the first quantizers of a codec."""
    most = len(codebook_sizes)
    if audio_codes.dtype.is_floating_point or audio_codes.dtype == torch.bool:
        raise UserError(f"codes are whole numbers, not {audio_codes.dtype}")
    if audio_codes.ndim != 3 or not 1 <= audio_codes.shape[1] <= most:
        raise UserError(
            f"codes have the shape (batch, quantizers, frames) with 1 to {most} quantizers, "
            f"not {tuple(audio_codes.shape)}"
        )
    for quantizer, size in enumerate(codebook_sizes[: audio_codes.shape[1]]):
        codes = audio_codes[:, quantizer]
        wrong = ((codes < 0) | (codes >= size)).nonzero()
        if len(wrong):
            row, frame = wrong[0].tolist()
            raise UserError(
                f"code {int(codes[row, frame])} (row {row}, quantizer {quantizer}, frame {frame}) is none of this "
                f"codec's: they go from 0 to {size - 1}"
            )


@torch.no_grad()
def standardize(layer: nn.Linear | nn.Conv1d, output: Tensor, deviation: float = 1.0) -> None:
    """Rescale an affine layer so that this `output` (rows, dim) of it gets mean 0 and that deviation a channel."""
    mean, scale = output.mean(dim=0), output.std(dim=0).clamp_min(1e-5) / deviation
    layer.get_parameter("bias").sub_(mean).div_(scale)
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        # weight norm: the length of each row is a weight of its own
        layer.get_parameter("parametrizations.weight.original0").div_(scale[:, None, None])
    else:
        layer.weight.div_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))


def standardize_layers(encoder: nn.Module, waveform: Tensor, mask: Tensor, settled: Tensor) -> None:
    """Standardise the output of every weight-normed convolution, from first to last: mean 0, deviation 1 a channel.

    Weight norm's own initialisation from data (arXiv 1602.07868, section 3). Without it speech shrinks from layer to
    layer while the biases stay, and the latent is a constant with a little noise: |mean| is 20 to 50 deviations.

    waveform (batch, samples); mask (batch, frames) of each row's own frames, `settled` of those that count.
    """

    def adjust(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        rows = output.movedim(layer.channel_dim, -1)  # (batch, samples, channels)
        standardize(layer.conv, rows[settled.repeat_interleave(rows.shape[1] // settled.shape[1], dim=1)])
        return layer.forward(*inputs).detach()  # the next layer sees what this one makes from now on

    hooks = [
        module.register_forward_hook(adjust) for module in encoder.modules() if hasattr(module, "channel_dim")
    ]
    try:
        with torch.enable_grad():  # without gradients some layers are passed by, or run in pieces
            encoder(waveform, mask)
    finally:
        for hook in hooks:
            hook.remove()


def weights_without_norm(model: nn.Module) -> dict[str, Tensor]:
    """The weights that weight norm makes, under the names that they have without it."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if nn.utils.parametrize.is_parametrized(module, "weight")
    }


def build_vocoder(config: VocosConfig | BigVGANConfig, *, folded: bool) -> Vocoder:
    """A fresh vocoder; `folded`: without weight norm."""
    return BigVGAN(config, folded=folded) if isinstance(config, BigVGANConfig) else Vocos(config)
