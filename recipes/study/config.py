"""Everything that decides a study."""

from dataclasses import dataclass, field
from pathlib import Path

from codec.foundation import Schedule, UserError
from data.config import CorpusFormat
from slm.documents.config import DocumentConfig
from slm.generation.config import SamplingConfig
from slm.models.config import ModelConfig
from slm.training.config import BatchConfig, OptimizerConfig


@dataclass(frozen=True)
class KMeansBaseline:
    """A k-means tokenizer, fitted to patches of the training recordings' log-mel: what a trained codec must beat."""

    name: str = "kmeans"
    """Its name in tables."""
    codes: int = 2_048
    """Size of the codebook."""
    stride: int = 4
    """Mel frames in a code: 4 frames of 10.4 ms give 24 codes a second."""
    vocoder: str = "hh-codec-tiny"
    """The codec whose mel is coded, and whose vocoder makes the sound."""
    frames: int = 60_000
    """Most mel frames to fit to, drawn at random from the training recordings."""
    iterations: int = 20
    """Most iterations of Lloyd's algorithm."""

    def __post_init__(self) -> None:
        for name in ("codes", "stride", "frames", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} of the baseline {self.name} is {getattr(self, name)}: at least 1")


@dataclass(frozen=True)
class ReconstructionConfig:
    """What is measured of the codecs alone, on held-out recordings."""

    utterances: int = 50
    """Most recordings to measure, spread evenly over the held-out ones."""
    metrics: list[str] = field(default_factory=lambda: ["log_mel_l1", "stoi", "pesq"])
    """Of log_mel_l1, multi_resolution_stft, stoi, pesq, voicing, prosody, dnsmos."""
    stability: int = 20
    """Recordings that are also coded shifted, turned down, made noisy and resampled."""


@dataclass(frozen=True)
class SpeakingConfig:
    """What the language models are asked to say."""

    sentences: int = 20
    """Held-out sentences to read aloud; 0: none."""
    candidates: int = 1
    """Times to say each sentence; the model itself chooses the one it hears best."""
    continuations: int = 3
    """Held-out recordings to continue; 0: none."""
    prompt_seconds: float = 3.0
    """Length of each prompt."""
    seconds: float = 5.0
    """Longest continuation."""
    metrics: list[str] = field(default_factory=lambda: ["dnsmos", "prosody"])
    """Metrics of both kinds of speech, of those that need no reference."""


@dataclass
class StudyConfig:
    """A study of `codec-slm study`.

    Every tokenizer goes through the same steps with the same settings: the corpus becomes tokens, a language model of
    one size learns them for one budget, `steps` updates or `audio_hours` of speech, and both are measured on the
    corpus's validation split.
    """

    corpus: str
    """Where the recordings are; it needs a validation split."""
    output: str
    """Directory of the study."""
    codecs: list[str] = field(default_factory=list)
    """Bundled names, directories or hub ids (kyutai/mimi:8)."""
    baselines: list[KMeansBaseline] = field(default_factory=list)
    """k-means tokenizers to compare with."""
    format: CorpusFormat = "auto"
    """Layout of the corpus."""
    gain: float = 1.0
    """Factor on every recording, for corpora recorded too low."""
    limit: int | None = None
    """Train on this many recordings only, spread evenly over the split."""
    speeds: list[float] = field(default_factory=lambda: [1.0])
    """Encode each training recording at each of these speeds."""
    shifts: int = 1
    """Encode each training recording with this many shifts of less than a frame."""
    text_model: str | None = None
    """A SentencePiece .model; unset: the corpus's characters."""
    steps: int | None = None
    """The budget in updates. A codec with more tokens a second sees less audio in as many steps."""
    audio_hours: float | None = None
    """The budget in hours of speech; give this or `steps`."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(size="nano"))
    """Shape of the language model."""
    voices: list[str] | None = None
    """Speakers that get a voice tag; unset: all of the corpus."""
    documents: DocumentConfig = field(
        default_factory=lambda: DocumentConfig(formats={"speech": 0.5, "tts": 0.5})
    )
    """Training documents."""
    batch: BatchConfig = field(
        default_factory=lambda: BatchConfig(length=1_024, blocks=4, blocks_per_forward=4)
    )
    """Size of an update."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-3))
    """Optimizer."""
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup_steps=20))
    """Learning rate schedule."""
    validations: int = 10
    """Points of a learning curve."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    """What is measured of the codecs alone."""
    speaking: SpeakingConfig = field(default_factory=SpeakingConfig)
    """What the language models are asked to say."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How tokens are drawn."""
    asr: str = "pocketsphinx"
    """Recogniser for recordings, codecs and language models: pocketsphinx, none,
    faster-whisper:DIRECTORY, or a Hugging Face recogniser."""
    speaker_model: str | None = None
    """A Hugging Face speaker verification model, or resemblyzer, for the similarity of speakers."""
    utmos: str | None = None
    """The file utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS, for UTMOS."""
    processes: int = 1
    """Tokenizers that are worked on at a time; on GPUs, one each."""
    threads: int = 1
    """Threads of each process."""
    seed: int = 0
    """Seed of the training runs and of sampling."""

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
