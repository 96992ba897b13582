"""Validation of a codec in training: mel distances, codebook use, samples for TensorBoard."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from matplotlib import colormaps
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from codec.foundation import sum_over_processes
from codec.nn.sequences import mask_from_lengths
from codec.training.config import Stage
from codec.training.step import CodecTrainingStep


@dataclass
class ValidationSet:
    """Whole recordings of one corpus at the codec's sampling rate."""

    name: str
    waveforms: list[Tensor]  # (samples,) each


@dataclass
class ValidationSample:
    """One recording before and after the codec."""

    name: str  # of its set
    recording: Tensor  # (samples in whole frames,)
    audio: Tensor | None  # (samples in whole frames,), None while the vocoder does not train
    recording_mel: Tensor  # (mel frames, n_mels)
    mel: Tensor  # (mel frames, n_mels) of the decoder, or of the audio when only the vocoder trains
    first_mel: Tensor | None  # likewise, from the first of several quantizers' codes alone


@dataclass
class ValidationResult:
    """Numbers and samples of one validation."""

    metrics: dict[str, float]
    samples: list[ValidationSample]  # the first recording of each set; on the first process only
    score: float  # the distances, weighed as the stage weighs its losses: lower is better; NaN where there is none


_DISTANCES = ("mel_l1", "waveform_mel_l1", "first_mel_l1")


@torch.no_grad()
def validate(
    step: CodecTrainingStep,
    sets: Sequence[ValidationSet],
    stage: Stage,
    accelerator: Accelerator,
    batch_seconds: float = 40.0,
) -> ValidationResult:
    """Run the model over every set; mean over frames and bands of each utterance, then over utterances.

    mel_l1: decoder's mel against the recording's; waveform_mel_l1: mel of the audio against the recording's, in the
    same definition; first_mel_l1: like mel_l1, from the first of several quantizers alone; codes_used and perplexity
    of the first quantizer over all sets together.

    The processes share the work, and all get the same numbers, whatever their number. Leaves the model in evaluation
    mode.
    """
    step.model.eval()
    metrics: dict[str, float] = {}
    samples: list[ValidationSample] = []
    counts = torch.zeros(step.model.config.codebook_sizes[0], dtype=torch.float64)
    for entry in sets:
        # of each utterance: its distances, and 1 for each distance that was measured
        found = torch.zeros(len(entry.waveforms), 2, len(_DISTANCES), dtype=torch.float64)
        batches = _batches(entry.waveforms, int(batch_seconds * step.model.config.sampling_rate))
        for number, batch in enumerate(batches):
            # the first process has the recording that is shown
            if (0 if 0 in batch else number % accelerator.num_processes) != accelerator.process_index:
                continue
            waveforms = [entry.waveforms[index] for index in batch]
            for index, sample in zip(
                batch, _reconstruct(step, entry.name, waveforms, stage, counts), strict=True
            ):
                for kind, mel in zip(_DISTANCES, _mels(step, sample, stage), strict=True):
                    if mel is not None:
                        distance = (mel - sample.recording_mel).abs().mean()
                        found[index, :, _DISTANCES.index(kind)] = torch.tensor([float(distance), 1.0])
                if index == 0:
                    samples.append(sample)
        distances, measured = sum_over_processes(found, accelerator).unbind(dim=1)  # (utterances, kinds)
        for number, kind in enumerate(_DISTANCES):
            if measured[:, number].any():
                metrics[f"{entry.name}/{kind}"] = float(distances[:, number].mean())
    counts = sum_over_processes(counts, accelerator)
    if counts.any():
        metrics["codes_used"] = float((counts > 0).sum())
        metrics["perplexity"] = perplexity(counts)
    weights = {
        "mel_l1": stage.losses.mel,
        "waveform_mel_l1": (
            stage.losses.waveform_mel + stage.losses.multi_scale + stage.losses.multi_scale_mel
        ),
    }
    weighed = [(weights.get(name.rpartition("/")[2], 0.0), value) for name, value in metrics.items()]
    total = sum(weight for weight, _ in weighed)
    score = sum(weight * value for weight, value in weighed) / total if total else math.nan
    return ValidationResult(metrics, samples, score)


def perplexity(counts: Tensor) -> float:
    """How many codes, used equally often, would carry as much as those that came `counts` (codes,) times."""
    return float(torch.special.entr(counts / counts.sum()).sum().exp())


def _mels(step: CodecTrainingStep, sample: ValidationSample, stage: Stage) -> tuple[Tensor | None, ...]:
    """The mels (mel frames, n_mels) of each of `_DISTANCES`, None for what this stage does not make."""
    audio_mel = None
    if sample.audio is not None:
        audio_mel = step.mel_of(sample.audio[None].to(step.model.device))[0].cpu()
        if stage.vocoder_input == "recording":
            sample.mel = audio_mel
    return sample.mel if stage.vocoder_input == "decoder" else None, audio_mel, sample.first_mel


def log_samples(
    writer: SummaryWriter, step: int, samples: Sequence[ValidationSample], sampling_rate: int
) -> None:
    """Write each sample's audio, and a picture of the recording's mel above the codec's."""
    for sample in samples:
        low, high = sample.recording_mel.aminmax()
        mels = torch.cat(
            [mel.T.flip(0) for mel in (sample.recording_mel, sample.mel)]
        )  # (2 * n_mels, frames)
        scaled = ((mels - low) / (high - low).clamp_min(1e-5)).clamp(0, 1)
        picture = colormaps["viridis"](scaled.numpy())[..., :3]
        writer.add_image(f"{sample.name}/mel", picture, step, dataformats="HWC")
        writer.add_audio(f"{sample.name}/recording", sample.recording, step, sampling_rate)
        if sample.audio is not None:
            writer.add_audio(f"{sample.name}/codec", sample.audio.clamp(-1, 1), step, sampling_rate)


def _batches(waveforms: Sequence[Tensor], samples: int) -> list[list[int]]:
    """Numbers of recordings of like length together, at most `samples` samples with padding (or one recording)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(waveforms)), key=lambda i: len(waveforms[i])):
        if batches and (len(batches[-1]) + 1) * len(waveforms[index]) <= samples:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _reconstruct(
    step: CodecTrainingStep, name: str, batch: list[Tensor], stage: Stage, counts: Tensor
) -> list[ValidationSample]:
    """Each recording (samples,) through the model, on the CPU. Adds the uses of each code to `counts` (codes,)."""
    model = step.model
    hop = model.config.hop_length
    device = model.device
    frames = [-(-len(waveform) // hop) for waveform in batch]
    padded = torch.zeros(len(batch), max(frames) * hop, device=device)
    for row, waveform in enumerate(batch):
        padded[row, : len(waveform)] = waveform.to(device)
    mask = mask_from_lengths(torch.tensor(frames, device=device))
    normal = model.normalized(padded)
    # the recording's mel row by row: its reflected end must not see the batch's padding
    targets = [step.mel_of(normal[row : row + 1, : n * hop])[0] for row, n in enumerate(frames)]
    audio = first = None
    if stage.vocoder_input == "recording":
        mel = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
        audio = model.vocode(mel, mask, mask.shape[1])
    else:
        codes = model.quantize(model.encoder(padded, mask), mask)
        counts += torch.bincount(codes[:, 0][mask].cpu(), minlength=len(counts))
        voice = model.voice_of(padded, mask.sum(dim=1) * hop) if model.config.voice_dim else None
        mel, audio = _decoded(step, codes, mask, stage.losses.need_waveform, frames, voice)
        if codes.shape[1] > 1:
            first, _ = _decoded(step, codes[:, :1], mask, False, frames, voice)
    return [
        ValidationSample(
            name=name,
            recording=normal[row, : n * hop].cpu(),
            audio=None if audio is None else audio[row, 0, : n * hop].cpu(),
            recording_mel=targets[row].cpu(),
            mel=mel[row, : len(targets[row])].cpu(),
            first_mel=None if first is None else first[row, : len(targets[row])].cpu(),
        )
        for row, n in enumerate(frames)
    ]


def _decoded(
    step: CodecTrainingStep,
    codes: Tensor,
    mask: Tensor,
    synthesize: bool,
    frames: Sequence[int],
    voice: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Codes -> the decoder's mel (batch, mel frames, n_mels), else the audio's, and audio if asked for."""
    model, hop = step.model, step.model.config.hop_length
    latent = model.codes_to_latent(codes, mask)
    if step.decodes_mel:
        mel = model.decode_mel(latent, mask, None, voice)
        return mel, model.vocode(mel, mask, mask.shape[1]) if synthesize else None
    audio = model.decode_latent(latent, mask, None, voice).audio_values
    mels = [step.mel_of(audio[row, :, : n * hop])[0] for row, n in enumerate(frames)]
    return torch.nn.utils.rnn.pad_sequence(mels, batch_first=True), audio
