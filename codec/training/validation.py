"""Validation of a codec in training: mel distances, codebook use, samples to hear and see."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.masks import mask_from_lengths
from codec.modeling import HHCodecModel
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

    name: str
    recording: Tensor  # (samples,)
    audio: Tensor | None  # (samples,), None while the vocoder does not train
    recording_mel: Tensor  # (mel frames, n_mels)
    mel: Tensor  # (mel frames, n_mels) of the decoder, or of the audio when only the vocoder trains


@dataclass
class ValidationResult:
    """Numbers and samples of one validation."""

    metrics: dict[str, float]
    samples: list[ValidationSample]
    score: float  # lower is better


@torch.no_grad()
def validate(
    step: CodecTrainingStep, sets: Sequence[ValidationSet], stage: Stage, batch_seconds: float = 40.0
) -> ValidationResult:
    """Run the model over every set; mean over frames and bands of each utterance, then over utterances.

    mel_l1: decoder's mel against the recording's; waveform_mel_l1: mel of the audio against the recording's, in the same
    definition; codes_used and perplexity over all sets together.
    """
    model: HHCodecModel = step.model
    model.eval()
    metrics: dict[str, float] = {}
    samples: list[ValidationSample] = []
    counts = torch.zeros(model.config.codebook_sizes[0])
    for entry in sets:
        distances: dict[str, list[float]] = {"mel_l1": [], "waveform_mel_l1": []}
        for batch in _batches(entry.waveforms, int(batch_seconds * model.config.sampling_rate)):
            found = _reconstruct(step, batch, stage, counts)
            for row, sample in enumerate(found):
                target = sample.recording_mel
                if stage.vocoder_input == "decoder":
                    distances["mel_l1"].append(float((sample.mel - target).abs().mean()))
                if sample.audio is not None:
                    again = step.mel_of(sample.audio[None].to(batch[row]))[0].cpu()
                    distances["waveform_mel_l1"].append(float((again - target).abs().mean()))
                    if stage.vocoder_input == "recording":
                        sample.mel = again
            if not samples or samples[-1].name != entry.name:
                found[0].name = entry.name
                samples.append(found[0])
        metrics |= {
            f"{entry.name}/{key}": sum(values) / len(values) for key, values in distances.items() if values
        }
    if counts.any():
        share = counts / counts.sum()
        metrics["codes_used"] = float((counts > 0).sum())
        metrics["perplexity"] = float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
    key = "waveform_mel_l1" if stage.losses.need_waveform else "mel_l1"
    scores = [value for name, value in metrics.items() if name.endswith(f"/{key}")]
    return ValidationResult(metrics, samples, sum(scores) / max(1, len(scores)))


def _batches(waveforms: Sequence[Tensor], samples: int) -> list[list[Tensor]]:
    """Recordings of like length together, at most `samples` samples with padding (or one recording)."""
    batches: list[list[Tensor]] = []
    for waveform in sorted(waveforms, key=len):
        if batches and (len(batches[-1]) + 1) * len(waveform) <= samples:
            batches[-1].append(waveform)
        else:
            batches.append([waveform])
    return batches


def _reconstruct(
    step: CodecTrainingStep, batch: list[Tensor], stage: Stage, counts: Tensor
) -> list[ValidationSample]:
    model = step.model
    hop = model.config.hop_length
    device = model.device
    frames = torch.tensor([-(-len(waveform) // hop) for waveform in batch], device=device)
    padded = torch.zeros(len(batch), int(frames.max()) * hop, device=device)
    for row, waveform in enumerate(batch):
        padded[row, : len(waveform)] = waveform.to(device)
    mask = mask_from_lengths(frames)
    # the recording's mel row by row: its reflected end must not see the batch's padding
    targets = [step.mel_of(padded[row : row + 1, : int(n) * hop])[0] for row, n in enumerate(frames)]
    audio = None
    if stage.vocoder_input == "recording":
        mel = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
        audio = model.vocode(mel, mask, mask.shape[1])
    else:
        latent = model.encoder(padded, mask)
        codes = model.quantizer.encode(latent)
        counts += torch.bincount(codes[mask].cpu(), minlength=len(counts))
        quantized = model.quantizer.decode(codes)
        mel = model.decoder(quantized, mask)
        if stage.losses.need_waveform:
            audio = model.vocode(mel, mask, mask.shape[1])
    return [
        ValidationSample(
            name="",
            recording=padded[row, : int(n) * hop].cpu(),
            audio=None if audio is None else audio[row, 0, : int(n) * hop].cpu(),
            recording_mel=targets[row].cpu(),
            mel=mel[row, : len(targets[row])].cpu(),
        )
        for row, n in enumerate(frames)
    ]
