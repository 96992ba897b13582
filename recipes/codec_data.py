"""The corpora of a codec's recipe, opened for its training."""

import hashlib
import json
import sys
from collections.abc import Sequence

from torch import Tensor

from codec.foundation import UserError, rank
from codec.training.batches import TrainingData
from codec.training.initialization import model_config
from codec.training.validation import ValidationSet
from data import AudioError, SegmentDataset, Utterance, open_corpus, read_audio, with_alignment
from data.segments import Labeller, MixedSegments, alphabet_of
from data.waveforms import FileWaveforms, MemoryWaveforms
from recipes.codec_recipe import CodecCorpus, CodecRecipe

_REFERENCE_SECONDS = 2.0  # of the same recording, from which a voice vector is taken in training


def training_data(config: CodecRecipe) -> TrainingData:
    """Open the corpora of a recipe.

    Raises UserError when one cannot be opened or none is given.
    """
    if not config.corpora:
        raise UserError("no corpora to train on: give some as --corpora or in the config file")
    codec = model_config(config)
    sampling_rate = codec.sampling_rate
    sources, validation, names = [], [], []
    texts: list[Utterance] = []
    for entry in config.corpora:
        corpus = open_corpus(entry.path, format=entry.format)
        if entry.alignment is not None:
            corpus = with_alignment(corpus, entry.alignment)
        train = [utterance for utterance in corpus.utterances if utterance.split == "train"]
        if not train:
            raise UserError(f"{entry.path} has no training split")
        names.append([corpus.name, [utterance.id for utterance in corpus.utterances]])
        reader = MemoryWaveforms.preload if config.preload else FileWaveforms
        waveforms = reader(train, sampling_rate)
        _say_what_is_broken(entry.path, waveforms.failures)
        sources.append((entry, waveforms, train))
        texts += train
        held_out = [utterance for utterance in corpus.utterances if utterance.split == "validation"]
        if held_out and entry.validation_limit > 0:
            namesakes = sum(other[0] == corpus.name for other in names[:-1])
            name = f"{corpus.name}-{namesakes + 1}" if namesakes else corpus.name
            validation.append(ValidationSet(name, _validation_waveforms(held_out, entry, sampling_rate)))

    alphabet = alphabet_of(texts) if config.reads_transcripts else ""
    if alphabet:
        names.append(["alphabet", list(alphabet)])
        labelled = [any(u.words for u in train) for _, _, train in sources]
        for (entry, _, _), known in zip(sources, labelled, strict=True):
            if not known and rank() == 0:
                print(
                    f"train-codec: {entry.path} has no word times, so losses.ctc learns from whole recordings alone: "
                    "make some with codec-slm align and give them as its alignment",
                    file=sys.stderr,
                )

    def segments(seconds: float) -> MixedSegments:
        return MixedSegments(
            [
                SegmentDataset(
                    waveforms,
                    sampling_rate,
                    round(seconds * sampling_rate),
                    seed=config.seed,
                    gain_db=entry.gain_db,
                    speaker_balance=entry.speaker_balance,
                    labeller=Labeller(train, sampling_rate, alphabet) if alphabet else None,
                    augmentation=entry.augmentation,
                    reference_samples=round(_REFERENCE_SECONDS * sampling_rate) if codec.voice_dim else 0,
                )
                for entry, waveforms, train in sources
            ],
            [entry.weight for entry in config.corpora],
            seed=config.seed,
        )

    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    return TrainingData(segments=segments, validation=validation, digest=digest, alphabet=alphabet)


def _validation_waveforms(
    utterances: Sequence[Utterance], entry: CodecCorpus, sampling_rate: int
) -> list[Tensor]:
    """Up to `validation_limit` recordings, spread evenly over the corpus: neighbours share a speaker or a chapter."""
    count = min(entry.validation_limit, len(utterances))
    waveforms, failures = [], []
    for number in range(count):
        utterance = utterances[number * len(utterances) // count]
        try:
            waveforms.append(read_audio(utterance.path, sampling_rate) * entry.validation_gain)
        except AudioError as error:
            failures.append((utterance.id, str(error)))
    _say_what_is_broken(entry.path, failures)
    return waveforms


def _say_what_is_broken(corpus: str, failures: Sequence[tuple[str, str]]) -> None:
    if failures and rank() == 0:
        print(
            f"train-codec: {len(failures)} recordings of {corpus} cannot be read and are left out; the first: "
            f"{failures[0][1]}",
            file=sys.stderr,
        )
