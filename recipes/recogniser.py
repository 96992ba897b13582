"""Training of the recogniser that listens while codecs train (codec/losses/recogniser.py), by transformers' Trainer."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from codec.foundation import RunDirectory, UserError, seed_globals
from codec.losses.recogniser import MelRecogniser, RecogniserConfig
from codec.training.batches import collate
from codec.training.initialization import model_config
from data import read_audio
from data.segments import Labeller, MixedSegments, Segment
from recipes.codec_data import known_alphabet, mixed_segments, open_sources
from recipes.codec_recipe import CodecRecipe, RecogniserRecipe

# The optimizer's state holds the learning rate.
_MAY_CHANGE = ("output", "steps", "checkpoint_every", "workers")


@dataclass
class TrainedRecogniser:
    """What `train_recogniser` made."""

    directory: Path
    recordings: int  # held out
    accuracy: float  # the share of their frames in which it hears the right character; NaN without any


class _Numbered(Dataset[Segment]):
    """The first `count` of endless segments."""

    def __init__(self, segments: MixedSegments, count: int):
        self.segments, self.count = segments, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Segment:
        return self.segments[index]


def _batch(segments: list[Segment]) -> dict[str, Tensor]:
    batch = collate(segments)
    return {
        "waveform": batch.get("heard", batch["waveform"]),  # with noise, where some was drawn
        "length": batch["length"],
        "said": torch.stack([segment["said"] for segment in segments]),
    }


def train_recogniser(config: RecogniserRecipe) -> TrainedRecogniser:
    """Train as the config says; the same call goes on from the last checkpoint.

    Raises UserError for corpora that cannot be opened or say nothing, and when the directory holds another run.
    """
    run = RunDirectory(config.output)
    try:
        run.changed_fields(config, _MAY_CHANGE)
        run.lock()
        return _train(config, run)
    finally:
        run.close()


def _train(config: RecogniserRecipe, run: RunDirectory) -> TrainedRecogniser:
    codec = model_config(CodecRecipe(model=config.model))
    mel = codec.vocoder_config.mel
    sources = open_sources(config.corpora, mel.sampling_rate, config.preload)
    alphabet = known_alphabet(sources, "the recogniser")
    if not alphabet.strip():
        raise UserError("no corpus has transcripts: a recogniser learns from these")
    seed_globals(config.seed, "weights")
    model = MelRecogniser(
        RecogniserConfig(alphabet, config.dim, 3 * config.dim, config.blocks, mel=dataclasses.asdict(mel))
    )
    segments = mixed_segments(
        sources,
        mel.sampling_rate,
        config.segment_seconds,
        config.seed,
        alphabet,
        frame_samples=mel.hop_length,
    )
    output = run.path
    run.write_config(config, _MAY_CHANGE)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(output),
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=min(200, config.steps // 10),
            weight_decay=0.01,
            save_steps=config.checkpoint_every,
            save_total_limit=1,
            logging_steps=50,
            dataloader_num_workers=config.workers,
            remove_unused_columns=False,
            report_to=[],
            seed=config.seed,
        ),
        data_collator=_batch,
        train_dataset=_Numbered(segments, config.steps * config.batch_size),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output)) if output.exists() else None)
    final = output / "final"
    model.eval().to("cpu").save_pretrained(final)
    right = total = recordings = 0
    for source in sources:
        labeller = Labeller(source.held_out, mel.sampling_rate, alphabet)
        for utterance in source.held_out[: source.entry.validation_limit]:
            audio = read_audio(utterance.path, mel.sampling_rate)
            frames = -(-len(audio) // mel.hop_length)
            said = torch.from_numpy(labeller.said(utterance.id, (np.arange(frames) + 0.5) * mel.hop_length))
            known = said >= 0
            with torch.no_grad():
                heard = model(audio[None], torch.tensor([len(audio)]), said[None])["logits"][0].argmax(dim=-1)
            right += int((heard == said)[known].sum())
            total += int(known.sum())
            recordings += bool(known.any())
    return TrainedRecogniser(final, recordings, right / total if total else math.nan)
