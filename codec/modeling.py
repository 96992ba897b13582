"""HH-Codec: speech to 24 codes a second and back, through mel (arXiv 2507.18897)."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from codec.configuration import PARTS, HHCodecConfig, LogMelEncoderConfig, SEANetConfig
from codec.layers import ConvNeXtBlock
from codec.log_mel_encoder import LogMelEncoder
from codec.masks import lengths_from_mask, mask_from_lengths
from codec.mel import LogMel
from codec.mel_decoder import MelDecoder
from codec.precision import at_least_float32
from codec.seanet import SEANetEncoder
from codec.slm_vq import SLMVQ, SLMVQOutput
from codec.streaming import StreamState
from codec.vocos import ISTFTHead, Vocos
from codec.windows import Window, join_windows, windows_over

STREAM_SECONDS = 10.0  # of audio in one step where a recording of any length is coded: bounds the memory
ALWAYS_SET: Any = None  # ModelOutput insists on defaults; no output leaves a field with this one unset


@dataclass
class HHCodecEncoderOutput(ModelOutput):
    """What `encode` gives."""

    audio_codes: Tensor = ALWAYS_SET  # (batch, num_quantizers, frames) int64
    frame_mask: Tensor = ALWAYS_SET  # (batch, frames) bool, True for a row's own frames


@dataclass
class HHCodecLatentOutput(ModelOutput):
    """What `encode_to_latent` gives."""

    latent: Tensor = ALWAYS_SET  # (batch, frames, dim) before the quantizer
    frame_mask: Tensor = ALWAYS_SET  # (batch, frames) bool


@dataclass
class HHCodecDecoderOutput(ModelOutput):
    """What `decode` gives."""

    audio_values: Tensor = ALWAYS_SET  # (batch, 1, frames * hop_length)
    # (batch, mel frames, n_mels) natural-log mel, as the vocoder expects it; None where audio was joined from windows
    mel: Tensor | None = None


@dataclass
class HHCodecOutput(ModelOutput):
    """What a training pass gives; a pass through some of the parts leaves the others' fields None."""

    frame_mask: Tensor = ALWAYS_SET  # (batch, frames)
    audio_values: Tensor | None = None  # (batch, 1, frames * hop_length)
    mel: Tensor | None = None  # (batch, mel frames, n_mels) of the decoder
    audio_codes: Tensor | None = None  # (batch, num_quantizers, frames)
    quantized: Tensor | None = None  # (batch, frames, dim), for distillation
    vq_loss: Tensor | None = None  # scalar
    commitment: Tensor | None = None  # scalar: mean squared distance of latent and code


class HHCodecModel(PreTrainedModel):
    """Encoder -> SLM-VQ -> mel decoder -> vocoder.

    Three laws hold: a row's codes and audio do not depend on the batch it rides in; a recording of S samples has
    ceil(S / hop_length) frames and T frames decode to T * hop_length samples; an exported model holds nothing that
    only training needs.
    """

    config_class = HHCodecConfig
    config: HHCodecConfig
    base_model_prefix = "hh_codec"
    main_input_name = "input_values"
    input_modalities = "audio"
    PARTS = PARTS

    def __init__(self, config: HHCodecConfig):
        super().__init__(config)
        encoder = config.encoder_config
        self.encoder: SEANetEncoder | LogMelEncoder
        if isinstance(encoder, SEANetConfig):
            self.encoder = SEANetEncoder(encoder, folded=config.exported)
        else:
            assert isinstance(encoder, LogMelEncoderConfig)
            self.encoder = LogMelEncoder(encoder)
        self.quantizer = SLMVQ(config.quantizer_config, exported=config.exported)
        vocoder = config.vocoder_config
        self.decoder = MelDecoder(config.decoder_config, encoder.dim, config.hop_length, vocoder.mel)
        self.vocoder = Vocos(vocoder)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in `transformers`, but in float32 unless told otherwise, whatever the weights are stored in.

        Codes come from nearest neighbours: in 16 bits they would differ.
        """
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        return super().from_pretrained(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LogMel | ISTFTHead):
            module.reset_buffers()
        elif isinstance(module, ConvNeXtBlock | nn.LayerNorm | nn.GroupNorm):
            pass  # layer scale and norms start as they are built
        elif isinstance(module, nn.Linear | nn.Conv1d) and not nn.utils.parametrize.is_parametrized(module):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    # -- waveform to codes ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, input_values: Tensor, padding_mask: Tensor | None = None) -> HHCodecEncoderOutput:
        """Code a batch: (batch, 1, samples), mask (batch, samples) -> codes (batch, 1, frames), frame mask.

        The mask is true (or 1) for a row's own samples, a prefix. Codes beyond a row's own frames are 0. A row longer
        than the config's `chunk_seconds` is coded in windows, by itself.
        """
        waveform, lengths = self._rows(input_values, padding_mask)
        frame_mask = mask_from_lengths(lengths, waveform.shape[1] // self.config.hop_length)
        window = self.config.window
        if window is None or frame_mask.shape[1] <= window.frames:
            # rows of one length need no masks, and the LSTM no packing: the same latent, sooner
            needed = None if padding_mask is None or bool(frame_mask.all()) else frame_mask
            codes = self.quantizer.encode(self.encoder(waveform, needed))
        else:
            codes = waveform.new_zeros(frame_mask.shape, dtype=torch.long)
            for row, frames in enumerate(lengths.tolist()):
                samples = waveform[row, : frames * self.config.hop_length]
                codes[row, :frames] = self.encode_blocks([samples])[0].to(codes.device)
        return HHCodecEncoderOutput(
            audio_codes=codes.masked_fill(~frame_mask, 0)[:, None], frame_mask=frame_mask
        )

    def encode_to_latent(
        self, input_values: Tensor, padding_mask: Tensor | None = None
    ) -> HHCodecLatentOutput:
        """The encoder alone, in one window: (batch, 1, samples) -> latent (batch, frames, dim), frame mask."""
        waveform, lengths = self._rows(input_values, padding_mask)
        frame_mask = mask_from_lengths(lengths, waveform.shape[1] // self.config.hop_length)
        return HHCodecLatentOutput(latent=self.encoder(waveform, frame_mask), frame_mask=frame_mask)

    def quantize(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> codes (batch, 1, frames) int64."""
        return self.quantizer.encode(latent)[:, None]

    @torch.no_grad()
    def encode_blocks(self, blocks: Iterable[Tensor]) -> Tensor:
        """Code one recording that comes in blocks (samples,) of any size, in bounded memory -> (1, frames) int64.

        The codes are those of `encode` on the whole, and do not depend on how the recording is cut into blocks.
        """
        window, hop = self.config.window, self.config.hop_length
        if window is None:
            return self._encode_stream(blocks)
        codes = [
            self.quantizer.encode(self.encoder(self._pad_to_hop(piece.samples[None])))[
                0, piece.keep_from : piece.keep_to
            ]
            for piece in windows_over((block.to(self.device) for block in blocks), window, hop)
        ]
        return torch.cat(codes)[None] if codes else torch.zeros(1, 0, dtype=torch.long, device=self.device)

    def _encode_stream(self, blocks: Iterable[Tensor]) -> Tensor:
        state = StreamState()
        codes = []
        step = int(STREAM_SECONDS * self.config.frame_rate) * self.config.hop_length
        samples = 0
        for block in blocks:
            for piece in block.to(self.device, torch.float32).split(step):
                samples += piece.numel()
                codes.append(self.quantizer.encode(self.encoder(piece[None], None, state)))
        state.final = True
        missing = -samples % self.config.hop_length
        codes.append(
            self.quantizer.encode(self.encoder(torch.zeros(1, missing, device=self.device), None, state))
        )
        return torch.cat(codes, dim=1)

    # -- codes to waveform ------------------------------------------------------------------------------------------

    def decode(self, audio_codes: Tensor, frame_mask: Tensor | None = None) -> HHCodecDecoderOutput:
        """Codes (batch, 1, frames), mask (batch, frames) -> audio (batch, 1, frames * hop_length), zero behind a row.

        Rows longer than the config's `chunk_seconds` are decoded in windows, each row by itself; `mel` is then None.
        """
        window = self.config.window
        if window is not None and audio_codes.shape[-1] > window.frames:
            return self._decode_in_windows(audio_codes, frame_mask)
        return self.decode_latent(self.codes_to_latent(audio_codes), frame_mask)

    def codes_to_latent(self, audio_codes: Tensor) -> Tensor:
        """Codes (batch, 1, frames) -> latent (batch, frames, dim)."""
        return self.quantizer.decode(audio_codes[:, 0])

    def decode_latent(self, latent: Tensor, frame_mask: Tensor | None = None) -> HHCodecDecoderOutput:
        """Quantized latent (batch, frames, dim) -> mel and audio, in one window."""
        mel = self.decoder(latent, frame_mask)
        return HHCodecDecoderOutput(audio_values=self.vocode(mel, frame_mask, latent.shape[1]), mel=mel)

    def vocode(self, mel: Tensor, frame_mask: Tensor | None, frames: int) -> Tensor:
        """Mel (batch, mel frames, n_mels) of `frames` codec frames -> audio (batch, 1, frames * hop_length)."""
        mel_mask = None if frame_mask is None else self.decoder.mel_mask(frame_mask)
        waveform = self.vocoder(mel, frames * self.config.hop_length, mel_mask)
        if frame_mask is not None:
            waveform = waveform * frame_mask.repeat_interleave(self.config.hop_length, dim=1)
        return waveform[:, None]

    @torch.no_grad()
    def decode_blocks(self, audio_codes: Tensor) -> Iterator[Tensor]:
        """Decode one recording of any length in bounded memory: codes (1, frames) -> blocks of audio (samples,)."""
        codes = audio_codes[None].to(self.device)  # (1, 1, frames)
        window = self.config.window
        if window is not None:
            yield from self._decode_windows(codes, window)
            return
        state = StreamState()
        pieces = codes.split(int(STREAM_SECONDS * self.config.frame_rate), dim=-1)
        for index, piece in enumerate(pieces):
            state.final = index == len(pieces) - 1
            yield self.vocoder(self.decoder(self.codes_to_latent(piece), None, state), None, None, state)[0]

    def _decode_in_windows(self, audio_codes: Tensor, frame_mask: Tensor | None) -> HHCodecDecoderOutput:
        batch, _, frames = audio_codes.shape
        audio = torch.zeros(batch, 1, frames * self.config.hop_length, device=audio_codes.device)
        lengths = [frames] * batch if frame_mask is None else lengths_from_mask(frame_mask).tolist()
        for row, length in enumerate(lengths):
            position = 0
            for block in self.decode_blocks(audio_codes[row, :, :length]):
                audio[row, 0, position : position + block.numel()] = block
                position += block.numel()
        return HHCodecDecoderOutput(audio_values=audio)

    def _decode_windows(self, codes: Tensor, window: Window) -> Iterator[Tensor]:
        """Windows with context, cross-faded over one frame where they meet."""
        hop = self.config.hop_length
        decoded = (
            (self.decode_latent(self.codes_to_latent(piece.samples[None, None])).audio_values[0, 0], piece)
            for piece in windows_over([codes[0, 0]], window, 1)
        )
        yield from join_windows(decoded, hop, fade=hop)

    # -- training ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        synthesize: bool = True,
        total_frames: Tensor | float | None = None,
    ) -> HHCodecOutput:
        """One training pass in one window: (batch, 1, samples) -> mel, audio, codes, VQ loss.

        `synthesize=False` leaves the vocoder out, for stages in which it does not train. The VQ loss is summed over
        the batch's own frames and divided by `total_frames` (their number unless given).
        """
        latent = self.encode_to_latent(input_values, padding_mask)
        mask = latent.frame_mask
        quantized: SLMVQOutput = self.quantizer(latent.latent, mask, total_frames)
        mel = self.decoder(quantized.latent, mask)
        audio = self.vocode(mel, mask, quantized.latent.shape[1]) if synthesize else None
        return HHCodecOutput(
            audio_values=audio,
            mel=mel,
            audio_codes=quantized.codes[:, None],
            frame_mask=mask,
            quantized=quantized.latent,
            vq_loss=quantized.loss,
            commitment=quantized.commitment,
        )

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, dim): the vectors that the codes of `quantizer` stand for."""
        return self.quantizer.effective_codebook(quantizer).detach()

    def freeze(self, parts: Iterable[str]) -> None:
        """Let exactly the named parts (of `PARTS`) rest: no gradients, evaluation mode for their dropout."""
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
    ) -> None:
        """Scale the encoder's output and the effective codebook to mean 0, deviation 1/sqrt(dim), from one batch.

        Before training only, and only of `parts` that start from random weights: without it all frames fall on one
        code.
        """
        if "encoder" in parts:
            output = self.encode_to_latent(input_values, padding_mask)
            _standardize(self.encoder.output_layer, output.latent[output.frame_mask])
        if "quantizer" in parts:
            _standardize(self.quantizer.output_layer, self.quantizer.effective_codebook())

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


@torch.no_grad()
def _standardize(layer: nn.Linear | nn.Conv1d, output: Tensor) -> None:
    """Rescale an affine layer so that this `output` (rows, dim) of it gets mean 0, deviation 1/sqrt(dim) a channel."""
    mean, scale = output.mean(dim=0), output.std(dim=0).clamp_min(1e-5) * output.shape[-1] ** 0.5
    layer.get_parameter("bias").sub_(mean).div_(scale)
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        # weight norm: the length of each row is a weight of its own
        layer.get_parameter("parametrizations.weight.original0").div_(scale[:, None, None])
    else:
        layer.weight.div_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))


AutoConfig.register(HHCodecConfig.model_type, HHCodecConfig, exist_ok=True)
AutoModel.register(HHCodecConfig, HHCodecModel, exist_ok=True)
