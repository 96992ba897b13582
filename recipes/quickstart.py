"""`codec-slm quickstart`: speech to tokens to a language model to speech, once through, in minutes on two cores.

Every step leaves files; started again, it goes on where it was.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from codec import CodecInfo, load_codec
from codec.foundation import RunDirectory, Schedule, UserError, duration
from data import (
    Corpus,
    TokenDataset,
    TokenizeOptions,
    Utterance,
    open_corpus,
    read_audio,
    tokenize_corpus,
    write_audio,
)
from data.token_dataset import describe_row
from recipes.loading import use_few_threads
from recipes.quickstart_report import Continued, Quickstart, Spoken, Tokenized, Trained, write_report
from slm import (
    BatchConfig,
    DatasetConfig,
    DocumentConfig,
    OptimizerConfig,
    SamplesConfig,
    SLMTrainingConfig,
    SpeechLM,
    StartConfig,
    train_slm,
)

SAMPLE_CORPUS = Path(__file__).parent / "bundled" / "sample_corpus"
CODEC = "hh-codec-tiny"
MODEL = "slm-tiny"
PREFERRED_VOICES = ("kathleen", "flite-slt")
NEW_VOICE = "flite-rms"  # speaks half of the sample corpus, and is none of the bundled model's voices

# Each training recording is encoded so often: forty sentences as they are would be learnt by heart in a minute.
SPEEDS = (0.9, 1.0, 1.1)
SHIFTS = 4

PROMPT_SECONDS = 1.25  # of a recording, to go on from
CONTINUE_SECONDS = 4.0
CANDIDATES = 4  # the best of so many, by the model's own hearing


def quickstart(output: Path, text: str, train_seconds: float) -> None:
    """Go through all the steps; see `codec-slm quickstart --help`."""
    if train_seconds <= 0:
        raise UserError(f"train_seconds is {train_seconds}: it must be above 0")
    output.mkdir(parents=True, exist_ok=True)
    (output / "audio").mkdir(exist_ok=True)
    print(f"Speech to tokens to a language model to speech. Everything goes to {output}.")
    corpus = open_corpus(SAMPLE_CORPUS / "manifest.jsonl")
    codec, speaker = load_codec(CODEC), SpeechLM.from_pretrained(MODEL)
    use_few_threads(speaker.model)
    CodecInfo.of(codec).check_same(speaker.vocabulary.codec, what=f"the language model {MODEL}")
    clock = _Clock()
    with clock.step("1/5", "speech to tokens: the bundled codec encodes the sample corpus"):
        tokenized = tokenize(output, codec, corpus)
    with clock.step("2/5", "one row of the token dataset"):
        print(tokenized.first_row)
    with clock.step("3/5", f"the bundled language model learns a new voice for {duration(train_seconds)}"):
        trained = train(output, train_seconds)
    with clock.step(
        "4/5", "a new sentence: by the bundled language model, and in the voice that it has learnt"
    ):
        spoken = speak(output, speaker, text, "spoken")
        learnt = speak(output, SpeechLM.from_pretrained(output / "trained"), text, "learnt", NEW_VOICE)
    with clock.step("5/5", "a recording goes through the codec, and the language model continues it"):
        continued = go_on(output, speaker, codec, corpus.split("validation")[0])
    write_report(Quickstart(output, clock.seconds, tokenized, trained, spoken, learnt, continued))
    print(
        f"\nDone in {duration(sum(clock.seconds.values()))}. Open {output / 'report.html'} to read and to listen."
    )
    print("codec-slm demo: a page on which to try all this by hand.")


def tokenize(output: Path, codec: Any, corpus: Corpus) -> Tokenized:
    """Make the token dataset, or find it made."""
    info, path = CodecInfo.of(codec), output / "tokens"
    options = TokenizeOptions(speeds=SPEEDS, shifts=SHIFTS, source="the sample corpus bundled with codec-slm")
    result = tokenize_corpus(codec, corpus, path, options, workers=0)
    if result.metadata is None:
        raise UserError("tokenizing was stopped: run the same command again to go on")
    rows = {split: int(counts["rows"]) for split, counts in result.metadata["splits"].items()}
    seconds = float(result.metadata["seconds"])
    print(
        f"{len(corpus.utterances)} recordings; those to train on {len(SPEEDS) * SHIFTS} times, a little faster, slower "
        f"and shifted: {sum(rows.values())} rows, {duration(seconds)} of speech"
    )
    dataset = TokenDataset.open(path, "train", codec=info)
    return Tokenized(
        dataset, info, len(corpus.utterances), len(SPEEDS), SHIFTS, seconds, rows, describe_row(dataset, 0)
    )


def train(output: Path, seconds: float) -> Trained:
    """Go on training the bundled language model on the tokens; a run that was interrupted goes on."""
    config = training_config(output, seconds)
    result = train_slm(config)
    if result.final is None:
        raise UserError("training was stopped: run the same command again to go on")
    log = RunDirectory(config.output).read_log()
    bits = [line["train/speech/bits_per_token"] for line in log if "train/speech/bits_per_token" in line]
    if bits:
        print(
            f"{result.steps} steps: a speech token cost {bits[0]:.2f} bits at first, {bits[-1]:.2f} at the end."
        )
    return Trained(result.steps, log)


def training_config(output: Path, seconds: float) -> SLMTrainingConfig:
    """What two CPU cores can teach the bundled language model in two minutes."""
    return SLMTrainingConfig(
        datasets=[DatasetConfig(str(output / "tokens"))],
        start_from=StartConfig(MODEL),
        output=str(output / "trained"),
        codec=CODEC,
        documents=DocumentConfig(
            formats={"aligned": 0.9, "asr": 0.1}, voice_tag_probability=1.0, corruption=0.05
        ),
        batch=BatchConfig(length=512, blocks=2, blocks_per_forward=2),
        optimizer=OptimizerConfig(learning_rate=5e-4),
        schedule=Schedule(warmup_steps=10),
        max_seconds=seconds,
        log_every=5,
        validate_every=40,
        checkpoint_every=100,
        samples=SamplesConfig(count=0),  # there is time for training only
    )


def speak(output: Path, speaker: SpeechLM, text: str, name: str, voice: str | None = None) -> Spoken:
    """A new sentence, in one of the model's voices, to `audio/NAME.wav`."""
    voices = speaker.vocabulary.voices
    if voice is None:
        voice = next((name for name in PREFERRED_VOICES if name in voices), next(iter(voices), None))
    candidates = CANDIDATES if "asr" in speaker.capabilities.formats else 1
    result = speaker.speak(text, voice=voice, candidates=candidates)
    write_audio(output / "audio" / f"{name}.wav", result.audio, result.sampling_rate)
    took = result.generation_seconds + result.decoding_seconds
    by = f" in the voice {voice}" if voice else ""
    print(f"“{text}”{by}: {result.seconds:.1f} s of speech in {took:.1f} s")
    for line in result.cuts:
        print(line)
    return Spoken(text, voice, candidates, result)


def go_on(output: Path, speaker: SpeechLM, codec: Any, recording: Utterance) -> Continued:
    """A recording that nobody trained on: through the codec and back, and continued from its first seconds."""
    rate = codec.config.sampling_rate
    waveform = read_audio(recording.path, rate)
    with torch.inference_mode():
        encoded = codec.encode(waveform[None, None])
        decoded = codec.decode(encoded.audio_codes, voice=encoded.voice).audio_values
        through_codec = decoded[0, 0, : len(waveform)]
    prompt = speaker.read(waveform[: int(PROMPT_SECONDS * rate)])
    voice = recording.speaker if recording.speaker in speaker.vocabulary.voices else None
    result = speaker.continue_speech(prompt, seconds=CONTINUE_SECONDS, voice=voice)
    for name, audio in (
        ("recording", waveform),
        ("recording_through_codec", through_codec),
        ("continued", result.audio),
    ):
        write_audio(output / "audio" / f"{name}.wav", audio, rate)
    heard = result.prompt_frames / speaker.vocabulary.codec.frame_rate
    print(f"{heard:.1f} s of {recording.id} heard, {result.seconds - heard:.1f} s more spoken")
    return Continued(recording, waveform, through_codec, result, heard)


class _Clock:
    """Announces steps and keeps how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, number: str, title: str) -> Iterator[None]:
        print(f"\n[{number}] {title}", flush=True)
        started = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - started
        print(f"[{number}] took {duration(self.seconds[title])}", flush=True)
