"""One training pass of a codec: model, teacher's head and losses in one module, for DDP to wrap."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.distillation import DistillationHead, SSLTeacher, distillation_centres
from codec.losses import MultiScaleSpectralLoss, WaveformMelLoss, mel_l1
from codec.masks import lengths_from_mask, mask_from_lengths
from codec.mel import LogMel
from codec.modeling import HHCodecModel
from codec.outputs import CodecOutput
from codec.training.config import Stage


@dataclass
class StepOutput:
    """What one pass gives."""

    losses: dict[str, Tensor]  # by name; "loss" is the weighted sum
    recording: Tensor  # (batch, 1, samples in whole frames)
    audio: Tensor | None  # the same from the codec, with its graph; None where no loss asks for audio
    frames: Tensor  # (batch,) each row's own


class CodecTrainingStep(nn.Module):
    """Waveform segments in, weighted losses of reconstruction out, and the audio for discriminators to judge."""

    def __init__(self, model: HHCodecModel, teacher: SSLTeacher | None):
        super().__init__()
        self.model = model
        self.teacher = teacher
        rate = model.config.sampling_rate
        self.target_mel = LogMel(model.config.vocoder_config.mel)
        self.waveform_mel = WaveformMelLoss(rate)
        self.multi_scale = MultiScaleSpectralLoss(rate)
        self.distillation = (
            None if teacher is None else DistillationHead(model.config.quantizer_config.dim, teacher.dim)
        )

    def forward(
        self, waveform: Tensor, lengths: Tensor, stage: Stage, total_frames: Tensor | float | None = None
    ) -> StepOutput:
        """(batch, samples), zero beyond a row's own `lengths` (batch,) -> losses, audio.

        Every loss is a sum over the batch's frames divided by `total_frames`, their own number unless given.
        """
        hop = self.model.config.hop_length
        waveform = nn.functional.pad(waveform, (0, -waveform.shape[1] % hop))
        padding_mask = mask_from_lengths(lengths, waveform.shape[1])
        total = ((lengths + hop - 1) // hop).sum() if total_frames is None else total_frames
        target = self.mel_of(waveform)
        output = self.reconstruct(waveform, padding_mask, target, stage, total)
        losses = self._losses(output, waveform, target, stage, total)
        weights = stage.losses
        losses["loss"] = sum(
            (getattr(weights, name) * value for name, value in losses.items()), start=waveform.new_zeros(())
        )
        if output.commitment is not None:
            losses["commitment"] = output.commitment
        return StepOutput(
            losses, waveform[:, None], output.audio_values, lengths_from_mask(output.frame_mask)
        )

    def reconstruct(
        self, waveform: Tensor, padding_mask: Tensor, target: Tensor, stage: Stage, total: Tensor | float
    ) -> CodecOutput:
        """The generator's outputs: of the whole codec, or of the vocoder alone on the recording's own mel."""
        if stage.vocoder_input == "recording":
            hop = self.model.config.hop_length
            frame_mask = padding_mask[:, ::hop]
            audio = self.model.vocode(target, frame_mask, frame_mask.shape[1])
            return CodecOutput(audio_values=audio, frame_mask=frame_mask)
        synthesize = stage.losses.need_waveform
        if not {"encoder", "quantizer"} & set(stage.train):
            return self._decode_only(waveform, padding_mask, synthesize)
        return self.model(waveform[:, None], padding_mask, synthesize=synthesize, total_frames=total)

    def _decode_only(self, waveform: Tensor, padding_mask: Tensor, synthesize: bool) -> CodecOutput:
        """With encoder and quantizer at rest: codes without gradients, then what may still train."""
        model = self.model
        with torch.no_grad():
            latent = model.encode_to_latent(waveform[:, None], padding_mask)
            codes = model.quantize(latent.latent)
            quantized = model.codes_to_latent(codes)
        mask = latent.frame_mask
        mel = model.decoder(quantized, mask)
        audio = model.vocode(mel, mask, quantized.shape[1]) if synthesize else None
        return CodecOutput(
            audio_values=audio, mel=mel, audio_codes=codes, frame_mask=mask, quantized=quantized
        )

    def mel_of(self, waveform: Tensor) -> Tensor:
        """(batch, samples in whole frames) -> the mel that decoder and vocoder meet at, (batch, mel frames, n_mels)."""
        mel = self.target_mel(waveform)
        frames = self.model.decoder.mel_frames(waveform.shape[1] // self.model.config.hop_length)
        missing = frames - mel.shape[1]  # a vocoder whose hop does not divide ours needs one frame more
        if missing > 0:
            mel = torch.cat([mel, mel[:, -1:].expand(-1, missing, -1)], dim=1)
        return mel

    def _losses(
        self, output: CodecOutput, waveform: Tensor, target: Tensor, stage: Stage, total: Tensor | float
    ) -> dict[str, Tensor]:
        weights, hop = stage.losses, self.model.config.hop_length
        mask = output.frame_mask
        losses: dict[str, Tensor] = {}
        with torch.autocast(waveform.device.type, enabled=False):
            if output.mel is not None and weights.mel:
                mel_mask = self.model.decoder.mel_mask(mask)
                mel_frames = total * hop / self.target_mel.config.hop_length
                losses["mel"] = mel_l1(output.mel.to(target.dtype), target, mel_mask, mel_frames)
            if output.vq_loss is not None and weights.vq:
                losses["vq"] = output.vq_loss
            if output.audio_values is not None:
                audio = output.audio_values[:, 0].to(waveform.dtype)
                samples = lengths_from_mask(mask) * hop
                if weights.waveform_mel:
                    losses["waveform_mel"] = self.waveform_mel(audio, waveform, samples, total * hop)
                if weights.multi_scale:
                    losses["multi_scale"] = self.multi_scale(audio, waveform, samples, total * hop)
        if weights.distillation and output.quantized is not None:
            assert self.teacher is not None and self.distillation is not None
            config = self.model.config
            centres = distillation_centres(mask.shape[1], config.frame_rate, waveform.device)
            samples = lengths_from_mask(mask) * hop
            features = self.teacher(waveform, samples, config.sampling_rate, centres)
            losses["distillation"] = self.distillation(output.quantized, features, mask, total)
        return losses
