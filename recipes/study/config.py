"""Everything that decides a study."""

from dataclasses import dataclass, field
from pathlib import Path

from codec.foundation import Schedule, UserError
from codec.metrics import WAVEFORM_METRICS
from data.corpora import CorpusFormat
from slm.documents import DocumentConfig
from slm.generation.sampling import SamplingConfig
from slm.models.configuration import ModelConfig
from slm.training.config import BatchConfig, OptimizerConfig


@dataclass(frozen=True)
class KMeansBaseline:
    """A k-means tokenizer, fitted to patches of the training recordings' log-mel: what a trained codec must beat."""

    name: str = "kmeans"
    codes: int = 2_048
    stride: int = 4  # frames of the mel in a code: 4 of 10.4 ms are 24 codes a second
    vocoder: str = "hh-codec-tiny"  # the codec whose mel it codes, and whose vocoder makes its sound
    frames: int = 60_000  # of the training recordings, drawn at random, to fit to at most
    iterations: int = 20  # of Lloyd's algorithm at most

    def __post_init__(self) -> None:
        for name in ("codes", "stride", "frames", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} of the baseline {self.name} is {getattr(self, name)}: at least 1")


@dataclass(frozen=True)
class ReconstructionConfig:
    """What is measured of the codecs alone, on held-out recordings."""

    utterances: int = 50  # at most, evenly spread over the held-out recordings
    # log_mel_l1, multi_resolution_stft, stoi, pesq, voicing, prosody, dnsmos
    metrics: list[str] = field(default_factory=lambda: ["log_mel_l1", "stoi", "pesq"])
    stability: int = 20  # recordings that are also coded shifted, turned down, made noisy, resampled


@dataclass(frozen=True)
class SpeakingConfig:
    """What the language models are asked to say."""

    sentences: int = 20  # held-out sentences to read aloud; 0: none
    candidates: int = 1  # say each so many times, and take the one that the model itself hears best
    continuations: int = 3  # held-out recordings to go on from; 0: none
    prompt_seconds: float = 3.0  # of each
    seconds: float = 5.0  # how far, at most
    # of both: those that need no reference
    metrics: list[str] = field(default_factory=lambda: ["dnsmos", "prosody"])

    def __post_init__(self) -> None:
        alone = [metric.name for metric in WAVEFORM_METRICS if not metric.needs_reference]
        if unknown := [name for name in self.metrics if name not in alone]:
            raise UserError(
                f"no metric {', '.join(unknown)} of speech by itself; speaking.metrics are of {', '.join(alone)}"
            )


@dataclass
class StudyConfig:
    """A study of `codec-slm study`.

    Every tokenizer goes through the same steps with the same settings: the corpus becomes tokens, a language model of
    one size learns them for one budget, `steps` updates or `audio_hours` of speech, and both are measured on the
    corpus's validation split.
    """

    corpus: str  # where the recordings are; it needs a validation split
    output: str
    codecs: list[str] = field(default_factory=list)  # bundled names, directories or hub ids (kyutai/mimi:8)
    baselines: list[KMeansBaseline] = field(default_factory=list)
    format: CorpusFormat = "auto"
    gain: float = 1.0  # factor on every recording, for corpora recorded too low
    limit: int | None = None  # train on so many recordings only, evenly spread over the split
    # Each training recording is encoded at every speed and with so many shifts of less than a frame.
    speeds: list[float] = field(default_factory=lambda: [1.0])
    shifts: int = 1
    text_model: str | None = None  # a SentencePiece .model; unset: the corpus's characters
    # The budget, one of the two: a codec of more tokens a second sees less audio in as many steps.
    steps: int | None = None
    audio_hours: float | None = None
    model: ModelConfig = field(default_factory=lambda: ModelConfig(size="nano"))
    voices: list[str] | None = None  # speakers that get a voice tag; unset: all of the corpus
    documents: DocumentConfig = field(
        default_factory=lambda: DocumentConfig(formats={"speech": 0.5, "tts": 0.5})
    )
    batch: BatchConfig = field(
        default_factory=lambda: BatchConfig(length=1_024, blocks=4, blocks_per_forward=4)
    )
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-3))
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=20))
    validations: int = 10  # points of a learning curve
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    speaking: SpeakingConfig = field(default_factory=SpeakingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    asr: str = (
        "pocketsphinx"  # hears recordings, codecs and language models; none, or a Hugging Face recogniser
    )
    # a Hugging Face speaker verification model, for the similarity of speakers
    speaker_model: str | None = None
    # the file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS, for UTMOS
    utmos: str | None = None
    processes: int = 1  # tokenizers that are worked on at a time; on GPUs, one each
    threads: int = 1  # of each process
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.codecs and not self.baselines:
            raise UserError(
                "give at least one tokenizer: --codecs hh-codec-tiny, or baselines in a config file"
            )
        if (self.steps is None) == (self.audio_hours is None):
            raise UserError("give the budget as steps or as audio_hours, one of the two")
        for name in ("steps", "audio_hours", "limit", "validations", "processes", "threads", "gain"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}: it must be above 0")
        names = [self.name_of(tokenizer) for tokenizer in self.tokenizers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two tokenizers are called {twice[0]}: give each once, and each baseline a name")

    @property
    def tokenizers(self) -> "list[str | KMeansBaseline]":
        """The codecs, then the baselines."""
        return [*self.codecs, *self.baselines]

    def name_of(self, tokenizer: "str | KMeansBaseline") -> str:
        """What a tokenizer is called in tables: of a directory its own name, where only one codec has it."""
        if isinstance(tokenizer, KMeansBaseline):
            return tokenizer.name
        short = [Path(codec).name if Path(codec).is_dir() else codec for codec in self.codecs]
        own = short[self.codecs.index(tokenizer)]
        return own if short.count(own) == 1 else tokenizer
