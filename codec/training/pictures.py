"""Samples of a training run for TensorBoard: audio and spectrograms before and after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codec.training.validation import ValidationSample

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def log_samples(
    writer: "SummaryWriter", step: int, samples: Sequence[ValidationSample], sampling_rate: int
) -> None:
    """Write each sample's audio and one picture of both mels."""
    from matplotlib.figure import Figure

    for sample in samples:
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        low, high = float(sample.recording_mel.min()), float(sample.recording_mel.max())
        for axis, mel, title in zip(
            axes, (sample.recording_mel, sample.mel), ("recording", "codec"), strict=True
        ):
            axis.imshow(mel.T.numpy(), origin="lower", aspect="auto", vmin=low, vmax=high)
            axis.set_title(title)
            axis.set_ylabel("mel band")
        writer.add_figure(f"{sample.name}/mel", figure, step)
        writer.add_audio(f"{sample.name}/recording", sample.recording, step, sampling_rate)
        if sample.audio is not None:
            writer.add_audio(f"{sample.name}/codec", sample.audio.clamp(-1, 1), step, sampling_rate)
