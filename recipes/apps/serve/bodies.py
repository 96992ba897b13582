"""What requests hold and what is answered, as the page of documentation tells it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from slm import SamplingConfig

_SAMPLING = SamplingConfig()
AudioFormat = Literal["wav", "mp3", "opus", "flac", "pcm"]


class Body(BaseModel):
    """Anything with known fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Drawing(Body):
    """How tokens are drawn."""

    seed: int = Field(0, ge=0, lt=2**63, description="the same seed gives the same speech")
    temperature: float = Field(_SAMPLING.temperature, ge=0, le=5)
    top_k: int = Field(_SAMPLING.top_k, ge=0, description="0: all tokens")
    top_p: float = Field(_SAMPLING.top_p, gt=0, le=1)

    @property
    def sampling(self) -> SamplingConfig:
        """As the model takes it."""
        return SamplingConfig(self.temperature, self.top_k, self.top_p)


class Speaking(Drawing):
    """What every request for speech may hold."""

    voice: str | None = Field(
        None, description="one of those that /health names; the model's first unless set"
    )
    speed: float = Field(1.0, ge=0.5, le=2)
    stream: bool = Field(
        False, description="send wav and pcm while they are made; other formats and speeds go as a whole"
    )
    response_format: AudioFormat = "wav"


class SpeakBody(Speaking):
    """What `/speak` takes."""

    text: str


class SpeechBody(Speaking):
    """What `/v1/audio/speech` takes: OpenAI's fields, and ours."""

    model: str = Field(description="the one that /v1/models names")
    input: str
    response_format: AudioFormat = Field("mp3", description="pcm: 16 bits at 24 kHz, without a header")
    stream_format: Literal["audio"] | None = Field(None, description='"audio" is another word for stream')


class DecodeBody(Body):
    """What `/decode` takes: `codes`, or all that `/encode` answers."""

    codes: list[list[int]] = Field(description="a row for each quantizer")
    fingerprint: str | None = Field(None, description="of the codec that made them: checked when given")
    frame_rate: float | None = Field(None, description="its frames a second: checked too")
    seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="of the recording: the audio is cut to it"
    )
    voice: list[float] | None = Field(None, description="who speaks; the codec's default voice unless set")


class EncodeAnswer(BaseModel):
    """A recording as its codes."""

    codes: list[list[int]]
    fingerprint: str
    frame_rate: float
    seconds: float
    voice: list[float] | None = Field(description="of a codec with a voice vector")


class ContinueOptions(Drawing):
    """How a recording is gone on from."""

    seconds: float = Field(10.0, gt=0, description="the longest continuation")
    voice: str | None = None
    only_new: bool = Field(False, description="without the recording")
    response_format: AudioFormat = "wav"


class TranscribeAnswer(BaseModel):
    """What a recording says."""

    text: str
    cuts: list[str] = Field(description="what was cut and why")


class LimitsAnswer(BaseModel):
    """What is refused."""

    megabytes: float
    seconds: float
    characters: int


class HealthAnswer(BaseModel):
    """What is served."""

    model: str
    codec: dict[str, Any]
    voices: list[str]
    limits: LimitsAnswer


class ModelAnswer(BaseModel):
    """A model as OpenAI's clients know it."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "codec-slm"


class ModelsAnswer(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]
