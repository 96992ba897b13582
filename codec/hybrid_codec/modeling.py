"""HybridCodec: semantic codes first, then acoustic ones; no teacher where it is used (arXiv 2606.06743).

As published: one convolutional encoder and one decoder, as DAC's; between them two streams of causal ConvNeXt blocks at
25 Hz. The semantic one is an encoder, one quantizer of 16,384 codes and a decoder; in training the decoder's output is
pulled to a layer of w2v-BERT 2.0. The acoustic one is the same around eleven quantizers of 1,024 codes, and gets the
latent less the decoded semantic stream. The decoder gets the sum of both. The variant with all four stacks, HC-SED-AED,
has 159,622,562 parameters; HC-SED has no acoustic stacks (`acoustic_blocks: 0`; 117,546,402), HC-SE no semantic decoder
either (`semantic_decoder_blocks: 0`; 96,508,322).

Assumed, from DualCodec's published 25 Hz model (arXiv 2505.13000): strides 4, 5, 6, 8; codes factorised in 8 dimensions
and looked up by direction; the teacher's features standardised; quantizer dropout; no acoustic stream for an eighth of
the training batches (here of the rows: the same share, evenly spread).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from codec.base import DRAWS, CodecDecoderOutput, CodecModel, CodecOutput, build_vocoder, weights_without_norm
from codec.hh_codec.configuration import LogMelEncoderConfig, MelDecoderConfig
from codec.hh_codec.encoders import LogMelEncoder
from codec.hh_codec.mel_decoder import MelDecoder
from codec.hybrid_codec.configuration import DACDecoderConfig, DACEncoderConfig, HybridCodecConfig
from codec.hybrid_codec.dac import DACDecoder, DACEncoder
from codec.hybrid_codec.quantizer import HybridLatents, HybridQuantizer, HybridQuantizerOutput
from codec.nn.sequences import StreamState


class HybridCodecModel(CodecModel):
    """Encoder -> semantic stream and residual quantizer -> decoder (-> vocoder, in presets that decode through mel)."""

    config_class = HybridCodecConfig
    config: HybridCodecConfig
    base_model_prefix = "hybrid_codec"
    encoder: DACEncoder | LogMelEncoder
    quantizer: HybridQuantizer
    decoder: DACDecoder | MelDecoder

    def __init__(self, config: HybridCodecConfig):
        super().__init__(config)
        encoder, decoder, vocoder = config.encoder_config, config.decoder_config, config.vocoder_config
        if isinstance(encoder, DACEncoderConfig):
            self.encoder = DACEncoder(encoder, folded=config.exported)
        else:
            assert isinstance(encoder, LogMelEncoderConfig)
            self.encoder = LogMelEncoder(encoder)
        self.quantizer = HybridQuantizer(config.quantizer_config, exported=config.exported)
        if isinstance(decoder, DACDecoderConfig):
            self.decoder = DACDecoder(decoder, encoder.dim, folded=config.exported)
        else:
            assert isinstance(decoder, MelDecoderConfig) and vocoder is not None
            self.decoder = MelDecoder(decoder, encoder.dim, config.hop_length, vocoder.mel)
            self.vocoder = build_vocoder(vocoder, folded=config.exported)
        self.post_init()

    def _codebook_sizes(self) -> Sequence[int]:
        return self.config.quantizer_config.codebook_sizes

    def use_quantizers(self, count: int | None) -> None:
        """Let `encode` give the codes of the first `count` quantizers only; of all for None.

        What a code means stays as it is. Raises ValueError for more than there are.
        """
        most = len(self._codebook_sizes())
        if count is not None and not 1 <= count <= most:
            raise ValueError(f"{self.config.name} has 1 to {most} quantizers to use, not {count}")
        self.config.used_quantizers = count

    # -- waveform to codes ------------------------------------------------------------------------------------------

    def quantize(
        self, latent: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, frames, dim) -> codes (batch, num_quantizers, frames) int64, the semantic ones first."""
        return self.quantizer.encode(latent, self.config.num_quantizers, frame_mask, state)

    # -- codes to waveform ------------------------------------------------------------------------------------------

    def codes_to_latents(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> HybridLatents:
        """Codes (batch, 1 to 12 quantizers, frames) -> the latents of both streams, (batch, frames, dim) each."""
        return self.quantizer.decode(audio_codes, frame_mask, state)

    def codes_to_latent(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """Codes (batch, 1 to 12 quantizers, frames) -> latent (batch, frames, dim)."""
        return self.codes_to_latents(audio_codes, frame_mask, state).sum

    def decode_latent(
        self,
        latent: Tensor,
        frame_mask: Tensor | None = None,
        state: StreamState | None = None,
        voice: Tensor | None = None,
    ) -> CodecDecoderOutput:
        """Quantized latent (batch, frames, dim) -> audio, in one window, or the next chunk of a stream."""
        if isinstance(self.decoder, MelDecoder):
            return super().decode_latent(latent, frame_mask, state, voice)
        return CodecDecoderOutput(audio_values=self.decoder(latent, frame_mask)[:, None])

    # -- training ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        synthesize: bool = True,
        total_frames: Tensor | float | None = None,
        draws: Tensor | None = None,
    ) -> CodecOutput:
        """One training pass in one window: (batch, 1, samples) -> mel or audio or both, codes, VQ loss.

        In training mode `draws`, (batch, DRAWS) numbers from [0, 1), decide how many quantizers every row gets; torch
        draws them unless given. `synthesize=False` skips the vocoder, for stages in which it does not train. The VQ
        loss is summed over the batch's own frames and divided by `total_frames` (their number unless given).
        """
        latent = self.encode_to_latent(input_values, padding_mask)
        mask = latent.frame_mask
        counts = self._draw_counts(len(mask), draws)
        quantized: HybridQuantizerOutput = self.quantizer(latent.latent, mask, total_frames, counts)
        mel = audio = None
        if isinstance(self.decoder, MelDecoder):
            mel = self.decoder(quantized.latents.sum, mask)
            audio = self.vocode(mel, mask, mask.shape[1]) if synthesize else None
        else:
            audio = self.decoder(quantized.latents.sum, mask)[:, None]
        return CodecOutput(
            audio_values=audio,
            mel=mel,
            audio_codes=quantized.codes,
            frame_mask=mask,
            quantized=quantized.latents.semantic,
            vq_loss=quantized.loss,
            commitment=quantized.commitment,
        )

    @torch.no_grad()
    def settled_latent(self, latent: Tensor, frame_mask: Tensor, draws: Tensor | None = None) -> Tensor:
        """The decoder's input while encoder and quantizer are frozen; in training mode, of any number of codes."""
        codes = self.quantizer.encode(latent, len(self.config.quantizer_config.codebook_sizes), frame_mask)
        counts = self._draw_counts(len(codes), draws)
        if counts is None:
            return self.codes_to_latent(codes, frame_mask)
        return self.quantizer.decode_some(codes, counts, frame_mask).sum

    def _draw_counts(self, rows: int, draws: Tensor | None) -> Tensor | None:
        if not self.training:
            return None
        return self.quantizer.draw_counts(
            torch.rand(rows, DRAWS, device=self.device) if draws is None else draws
        )

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, dim): the vectors that the codes of `quantizer` stand for.

        Those of the first enter the ConvNeXt blocks behind it, and are `semantic_dim` wide.
        """
        return self.quantizer.effective_codebook(quantizer).detach()

    def folded(self) -> dict[str, Tensor]:
        """The weights without weight norm, and the quantizers' projections folded."""
        if self.config.exported:
            return {}
        quantizer = {f"quantizer.{name}": tensor for name, tensor in self.quantizer.folded().items()}
        return quantizer | weights_without_norm(self)

    @torch.no_grad()
    def _calibrate_quantizer(self, latent: Tensor) -> None:
        self.quantizer.calibrate(latent)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.ConvTranspose1d) and not nn.utils.parametrize.is_parametrized(module):
            # each output sample is the sum of two taps of every channel
            nn.init.trunc_normal_(module.weight, std=(2 * module.in_channels) ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            super()._init_weights(module)


AutoConfig.register(HybridCodecConfig.model_type, HybridCodecConfig, exist_ok=True)
AutoModel.register(HybridCodecConfig, HybridCodecModel, exist_ok=True)
