"""The forward pass of codec training: model, distillation head and losses in one module, for DDP to wrap."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from codec.base import CodecModel, CodecOutput
from codec.foundation import UserError
from codec.losses.adversarial import AudioPair, crop_pair
from codec.losses.recogniser import RecogniserLoss
from codec.losses.reconstruction import MultiScaleMelLoss, MultiScaleSpectralLoss, WaveformMelLoss, mel_l1
from codec.losses.semantic import (
    CharacterCTC,
    DistillationHead,
    FeatureRegression,
    SSLTeacher,
    Transcripts,
    distillation_centres,
)
from codec.nn.kernels import at_least_float32
from codec.nn.mel import LogMel, MelConfig
from codec.nn.sequences import lengths_from_mask, mask_from_lengths
from codec.training.config import Stage


@dataclass
class StepOutput:
    """Output of `CodecTrainingStep`."""

    losses: dict[str, Tensor]  # by name; "loss" is the weighted sum
    recording: Tensor  # (batch, 1, samples in whole frames)
    audio: Tensor | None  # the same from the codec, with its graph; None where no loss needs audio
    frames: Tensor  # (batch,) each row's own
    mels: AudioPair | None  # the recordings' mels and the decoder's, with its graph; None where it draws none
    # (codes,) how often each code of the first quantizer came; None where no codes were made
    usage: Tensor | None

    def judged(self, hop: int, samples: int | None, place: float) -> dict[str, AudioPair]:
        """What discriminators get, by what they judge: a stretch of `samples` of the audio, and of the mel."""
        pairs = {}
        if self.mels is not None:
            frames = self.mels.real.shape[-1]
            stretch = None if samples is None else samples * frames // self.recording.shape[-1]
            pairs["mel"] = crop_pair(self.mels, stretch, place)
        if self.audio is not None:
            audio = self.audio.to(self.recording.dtype)
            whole = AudioPair(self.recording, audio, self.frames * hop, self.frames)
            pairs["waveform"] = crop_pair(whole, samples, place)
        return pairs


@dataclass
class SemanticObjectives:
    """What the losses that know of words need: a teacher and transcripts for the stream, a recogniser for speech."""

    teacher: SSLTeacher | None = None
    teacher_loss: Literal["cosine", "l2"] = "cosine"
    characters: int = 0  # in the transcripts' alphabet; 0: no transcripts
    recogniser: RecogniserLoss | None = None


class CodecTrainingStep(nn.Module):
    """Waveform segments to weighted losses, and the codec's audio for the discriminators."""

    def __init__(self, model: CodecModel, objectives: SemanticObjectives):
        super().__init__()
        self.model = model
        self.teacher, self.recogniser = objectives.teacher, objectives.recogniser
        rate, dim = model.config.sampling_rate, model.config.quantizer_config.dim
        self.decodes_mel = "vocoder" in model.PARTS
        self.target_mel = LogMel(
            model.config.vocoder_config.mel
            if self.decodes_mel
            # for pictures and scores: four frames a code
            else MelConfig(sampling_rate=rate, hop_length=model.config.hop_length // 4, f_max=rate / 2)
        )
        self.spectral_losses = nn.ModuleDict(
            {
                "waveform_mel": WaveformMelLoss(rate),
                "multi_scale": MultiScaleSpectralLoss(rate),
                "multi_scale_mel": MultiScaleMelLoss(rate),
            }
        )
        self.distillation: DistillationHead | FeatureRegression | None = None
        if self.teacher is not None:
            head = DistillationHead if objectives.teacher_loss == "cosine" else FeatureRegression
            self.distillation = head(dim, self.teacher.dim)
        self.ctc = CharacterCTC(dim, objectives.characters) if objectives.characters else None

    def forward(
        self,
        waveform: Tensor,
        lengths: Tensor,
        stage: Stage,
        total_frames: Tensor | float | None = None,
        texts: Transcripts | None = None,
        draws: Tensor | None = None,
        heard: Tensor | None = None,
        reference: tuple[Tensor, Tensor] | None = None,
    ) -> StepOutput:
        """(batch, samples), zero beyond a row's own `lengths` (batch,) -> losses, audio.

        Every loss is a sum over the batch's frames divided by `total_frames`, their own number unless given. losses.ctc
        needs `texts`. `draws` (batch, DRAWS) are the random numbers of codecs that draw for each row. `heard` (batch,
        samples) is encoded instead of `waveform`, which stays the target. A codec with a voice vector takes it from
        `reference`, (batch, samples) and each row's own (batch,), or without one from `waveform`.
        """
        hop = self.model.config.hop_length
        waveform = nn.functional.pad(waveform, (0, -waveform.shape[1] % hop))
        padding_mask = mask_from_lengths(lengths, waveform.shape[1])
        total = ((lengths + hop - 1) // hop).sum() if total_frames is None else total_frames
        source = waveform if heard is None else nn.functional.pad(heard, (0, -heard.shape[1] % hop))
        voice = None
        if self.model.config.voice_dim and stage.vocoder_input != "recording":
            voice = self.model.voice_of(*((waveform, lengths) if reference is None else reference))
        waveform = self.model.normalized(waveform)
        target = self.mel_of(waveform)
        output = self.reconstruct(source, padding_mask, target, stage, total, draws, voice)
        losses = self._losses(output, waveform, target, stage, total)
        losses |= self._semantic_losses(output, waveform, stage, total, texts)
        weights = stage.losses
        losses["loss"] = sum(
            (getattr(weights, name) * value for name, value in losses.items()), start=waveform.new_zeros(())
        )
        if output.commitment is not None:
            losses["commitment"] = output.commitment
        usage = None
        if output.audio_codes is not None:
            usage = waveform.new_zeros(self.model.config.codebook_sizes[0], dtype=torch.float32)
            own = output.frame_mask.flatten().to(usage.dtype)
            usage.index_add_(0, output.audio_codes[:, 0].flatten(), own)  # bincount would wait for the device
        frames, mels = lengths_from_mask(output.frame_mask), None
        if output.mel is not None:
            own = lengths_from_mask(self.model.decoder.mel_mask(output.frame_mask))
            mels = AudioPair(target.transpose(1, 2), output.mel.to(target.dtype).transpose(1, 2), own, frames)
        return StepOutput(losses, waveform[:, None], output.audio_values, frames, mels, usage)

    def reconstruct(
        self,
        waveform: Tensor,
        padding_mask: Tensor,
        target: Tensor,
        stage: Stage,
        total: Tensor | float,
        draws: Tensor | None = None,
        voice: Tensor | None = None,
    ) -> CodecOutput:
        """Outputs of the whole codec, or of the vocoder alone on the recording's own mel."""
        if stage.vocoder_input == "recording":
            hop = self.model.config.hop_length
            frame_mask = padding_mask[:, ::hop]
            audio = self.model.vocode(target, frame_mask, frame_mask.shape[1])
            return CodecOutput(audio_values=audio, frame_mask=frame_mask)
        synthesize = stage.losses.need_waveform
        if not {"encoder", "quantizer"} & set(stage.train):
            return self._decode_only(waveform, padding_mask, synthesize, draws, voice)
        given = {} if voice is None else {"voice": voice}
        return self.model(
            waveform[:, None], padding_mask, synthesize=synthesize, total_frames=total, draws=draws, **given
        )

    def _decode_only(
        self,
        waveform: Tensor,
        padding_mask: Tensor,
        synthesize: bool,
        draws: Tensor | None,
        voice: Tensor | None,
    ) -> CodecOutput:
        """Outputs with encoder and quantizer frozen: codes without gradients, then decoder and vocoder."""
        model = self.model
        with torch.no_grad():
            latent = model.encode_to_latent(waveform[:, None], padding_mask)
            quantized = model.settled_latent(latent.latent, latent.frame_mask, draws)
        mask = latent.frame_mask
        if not self.decodes_mel:
            return CodecOutput(
                audio_values=model.decode_latent(quantized, mask).audio_values, frame_mask=mask
            )
        mel = model.decode_mel(quantized, mask, None, voice)
        audio = model.vocode(mel, mask, quantized.shape[1]) if synthesize else None
        return CodecOutput(audio_values=audio, mel=mel, frame_mask=mask)

    def mel_of(self, waveform: Tensor) -> Tensor:
        """(batch, samples in whole frames) -> the mel between decoder and vocoder, (batch, mel frames, n_mels).

        A codec without such a mel gets one for comparing audio.
        """
        mel = self.target_mel(waveform)
        if not self.decodes_mel:
            return mel
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
            if weights.recogniser:
                losses["recogniser"] = self._recogniser_loss(output, waveform, target, total)
            if output.audio_values is not None:
                audio = output.audio_values[:, 0].to(waveform.dtype)
                samples = lengths_from_mask(mask) * hop
                for name, loss in self.spectral_losses.items():
                    if getattr(weights, name):
                        losses[name] = loss(audio, waveform, samples, total * hop)
        return losses

    def _recogniser_loss(
        self, output: CodecOutput, waveform: Tensor, target: Tensor, total: Tensor | float
    ) -> Tensor:
        """What is heard differently in the codec's waveform, or where there is none, in its mel."""
        assert self.recogniser is not None
        if output.audio_values is not None:
            mel, target = (
                self.recogniser.mel(x.to(waveform.dtype)) for x in (output.audio_values[:, 0], waveform)
            )
        elif self.recogniser.mel.config == self.target_mel.config:
            assert output.mel is not None
            mel = output.mel
        else:
            raise UserError(
                "the recogniser hears another mel than the mel decoder draws: train one on that mel, or add a loss of "
                "the waveform"
            )
        hop = self.recogniser.mel.config.hop_length
        samples = lengths_from_mask(output.frame_mask) * self.model.config.hop_length
        mask = mask_from_lengths(samples // hop, mel.shape[1])
        return self.recogniser(
            mel, target[:, : mel.shape[1]], mask, total * self.model.config.hop_length / hop
        )

    def _semantic_losses(
        self,
        output: CodecOutput,
        waveform: Tensor,
        stage: Stage,
        total: Tensor | float,
        texts: Transcripts | None,
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if output.quantized is None:
            return losses
        if stage.losses.distillation:
            assert self.distillation is not None
            features = self._teacher_features(waveform, output.frame_mask)
            losses["distillation"] = self.distillation(output.quantized, features, output.frame_mask, total)
        if stage.losses.ctc:
            assert self.ctc is not None and texts is not None
            with torch.autocast(waveform.device.type, enabled=False):
                stream = at_least_float32(output.quantized)
                losses["ctc"] = self.ctc(stream, texts, self.model.config.hop_length, total)
        return losses

    def _teacher_features(self, waveform: Tensor, frame_mask: Tensor) -> Tensor:
        """(batch, samples in whole frames) -> (batch, 2 * frames, teacher_dim) at half frames."""
        assert self.teacher is not None
        config = self.model.config
        centres = distillation_centres(frame_mask.shape[1], config.frame_rate, waveform.device)
        samples = lengths_from_mask(frame_mask) * config.hop_length
        return self.teacher(waveform, samples, config.sampling_rate, centres)

    @torch.no_grad()
    def measure_teacher(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Standardise the teacher's features by those of these batches."""
        assert isinstance(self.distillation, FeatureRegression)
        hop, device = self.model.config.hop_length, self.model.device
        found = []
        for batch in batches:
            waveform = batch["waveform"].to(device)
            waveform = nn.functional.pad(waveform, (0, -waveform.shape[1] % hop))
            frames = (batch["length"].to(device) + hop - 1) // hop
            mask = mask_from_lengths(frames, waveform.shape[1] // hop)
            features = self._teacher_features(waveform, mask)
            found.append(at_least_float32(features.unflatten(1, (-1, 2)).mean(dim=2)[mask]))
        self.distillation.measure(torch.cat(found))
