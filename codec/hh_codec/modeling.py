"""HH-Codec: speech to 24 codes a second and back, through mel (arXiv 2507.18897)."""

from torch import Tensor
from transformers import AutoConfig, AutoModel

from codec.base import CodecOutput, SingleCodebookModel, build_vocoder, weights_without_norm
from codec.hh_codec.configuration import FSQConfig, HHCodecConfig, LogMelEncoderConfig, SEANetConfig
from codec.hh_codec.encoders import LogMelEncoder, SEANetEncoder
from codec.hh_codec.fsq import FSQ
from codec.hh_codec.mel_decoder import MelDecoder
from codec.hh_codec.slm_vq import SLMVQ, QuantizerOutput


class HHCodecModel(SingleCodebookModel):
    """Encoder -> SLM-VQ or FSQ -> mel decoder, to which a voice encoder may say who speaks -> vocoder."""

    config_class = HHCodecConfig
    config: HHCodecConfig
    base_model_prefix = "hh_codec"
    encoder: SEANetEncoder | LogMelEncoder
    quantizer: SLMVQ | FSQ
    decoder: MelDecoder

    def __init__(self, config: HHCodecConfig):
        super().__init__(config)
        encoder = config.encoder_config
        if isinstance(encoder, SEANetConfig):
            self.encoder = SEANetEncoder(encoder, folded=config.exported)
        else:
            assert isinstance(encoder, LogMelEncoderConfig)
            self.encoder = LogMelEncoder(encoder)
        quantizer = config.quantizer_config
        self.quantizer = (
            FSQ(quantizer) if isinstance(quantizer, FSQConfig) else SLMVQ(quantizer, exported=config.exported)
        )
        vocoder = config.vocoder_config
        self.decoder = MelDecoder(
            config.decoder_config, encoder.dim, config.hop_length, vocoder.mel, config.voice_dim
        )
        self.vocoder = build_vocoder(vocoder, folded=config.exported)
        self.post_init()

    # -- training ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        synthesize: bool = True,
        total_frames: Tensor | float | None = None,
        draws: Tensor | None = None,
        voice: Tensor | None = None,
    ) -> CodecOutput:
        """One training pass in one window: (batch, 1, samples), voice (batch, voice_dim) -> mel, audio, codes, VQ loss.

        `synthesize=False` skips the vocoder, for stages in which it does not train. The VQ loss is summed over the
        batch's own frames and divided by `total_frames` (their number unless given).
        """
        latent = self.encode_to_latent(input_values, padding_mask)
        mask = latent.frame_mask
        quantized: QuantizerOutput = self.quantizer(latent.latent, mask, total_frames)
        mel = self.decoder(quantized.latent, mask, None, voice)
        audio = self.vocode(mel, mask, quantized.latent.shape[1]) if synthesize else None
        return CodecOutput(
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

    def folded(self) -> dict[str, Tensor]:
        """The effective codebook, and the encoder's weights without weight norm."""
        if self.config.exported:
            return {}
        folded = weights_without_norm(self)
        if isinstance(self.quantizer, SLMVQ):
            folded["quantizer.codebook"] = self.quantizer.effective_codebook()
        return folded

    def _calibrate_quantizer(self, latent: Tensor) -> None:
        self.quantizer.calibrate(latent)


AutoConfig.register(HHCodecConfig.model_type, HHCodecConfig, exist_ok=True)
AutoModel.register(HHCodecConfig, HHCodecModel, exist_ok=True)
