"""The application: `/encode`, `/decode`, `/speak`, `/health`.

curl --data-binary @boats.wav localhost:8000/encode
curl -d '{"codes": [[3, 14, 15]]}' localhost:8000/decode > back.wav
curl -d '{"text": "Nobody was in a hurry."}' localhost:8000/speak | aplay
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from codec import CodecInfo
from codec.foundation import UserError
from recipes.apps.config import ServiceLimits
from recipes.apps.serve.middleware import LimitMiddleware, RequestError
from recipes.apps.uploads import Upload, read_recording
from recipes.apps.wav_stream import WavBroadcast, wav_bytes
from slm import SamplingConfig, SpeechLM

_SAMPLING = SamplingConfig()
Body = TypeVar("Body", bound=BaseModel)


class DecodeBody(BaseModel):
    """What `/decode` takes: `codes`, or all that `/encode` answers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    codes: list[list[int]]  # (num_quantizers, frames)
    fingerprint: str | None = None  # of the codec that made them: checked when it is given
    frame_rate: float | None = None  # its frames a second: checked too
    seconds: float | None = Field(
        default=None, gt=0, allow_inf_nan=False
    )  # of the recording: the audio is cut to it


class SpeakBody(BaseModel):
    """What `/speak` takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    voice: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    temperature: float = Field(default=_SAMPLING.temperature, ge=0, le=5)
    top_k: int = Field(default=_SAMPLING.top_k, ge=0)
    top_p: float = Field(default=_SAMPLING.top_p, gt=0, le=1)


class RequestQueue:
    """Works on `limits.concurrent` requests at once; `limits.waiting` more may wait, others get a 503."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.concurrent)
        self._waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot for as long as the block takes. Raises RequestError."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()

    async def acquire(self) -> None:
        """Wait for a slot. Raises RequestError."""
        if self._slots.locked() and self._waiting >= self._limits.waiting:
            raise RequestError(503, "too many requests are waiting: try again in a moment")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        """Give the slot to the next request."""
        self._slots.release()


def create_app(speaker: SpeechLM, limits: ServiceLimits) -> FastAPI:
    """A FastAPI application around a loaded model and its codec."""
    # no pages of documentation: they would load scripts from elsewhere
    app = FastAPI(title="codec-slm", docs_url=None, redoc_url=None, redirect_slashes=False)
    info, codec, queue = CodecInfo.of(speaker.codec), speaker.codec, RequestQueue(limits)
    rate = info.sampling_rate
    making: set[asyncio.Task[None]] = set()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """What is served."""
        return {
            "codec": info.to_dict(),
            "voices": list(speaker.vocabulary.voices),
            "limits": {
                "megabytes": limits.megabytes,
                "seconds": limits.seconds,
                "characters": limits.characters,
            },
        }

    @app.post("/encode")
    async def encode(request: Request) -> dict[str, Any]:
        """An audio file as the body -> its codes."""
        upload = Upload(await request.body())
        async with queue.slot():
            return await asyncio.to_thread(_encode, upload)

    def _encode(upload: Upload) -> dict[str, Any]:
        recording = read_recording(upload, rate, limits.seconds)
        if not recording.is_whole:
            raise RequestError(413, f"the recording is longer than {limits.seconds:g} s")
        codes = codec.encode_blocks([recording.waveform.to(speaker.model.device)]).audio_codes[0]
        return {
            "codes": codes.tolist(),
            "fingerprint": info.fingerprint,
            "frame_rate": info.frame_rate,
            "seconds": len(recording.waveform) / rate,
        }

    @app.post("/decode")
    async def decode(request: Request) -> Response:
        """Codes -> a WAV file."""
        body = _parsed(DecodeBody, await request.body())
        if body.fingerprint not in (None, info.fingerprint):
            raise UserError(
                f"these codes are those of another codec ({body.fingerprint[:32]}), "
                f"not of {info.name} ({info.fingerprint})"
            )
        if body.frame_rate not in (None, info.frame_rate):
            raise UserError(f"frame_rate is {body.frame_rate:g}, that of {info.name} is {info.frame_rate:g}")
        codes = _checked_codes(body.codes, info, limits)
        samples = codes.shape[1] * info.hop_length if body.seconds is None else round(body.seconds * rate)
        if -(-samples // info.hop_length) != codes.shape[1]:
            raise UserError(
                f"seconds is {body.seconds:g}, the codes are of {codes.shape[1] / info.frame_rate:g} s"
            )
        async with queue.slot():
            wav = await asyncio.to_thread(_decode, codes, samples)
        return Response(wav, media_type="audio/wav")

    def _decode(codes: torch.Tensor, samples: int) -> bytes:
        with torch.inference_mode():
            audio = codec.decode(codes[None].to(speaker.model.device)).audio_values
        return wav_bytes(audio[0, 0, :samples], rate)

    @app.post("/speak")
    async def speak(request: Request) -> StreamingResponse:
        """A text -> a WAV that begins before all of it is spoken."""
        body = _parsed(SpeakBody, await request.body())
        if len(body.text) > limits.characters:
            raise RequestError(413, f"the text is longer than {limits.characters} characters")
        sampling = SamplingConfig(body.temperature, body.top_k, body.top_p)
        await queue.acquire()
        try:
            stream = await asyncio.to_thread(
                speaker.stream, body.text, body.voice, sampling=sampling, seed=body.seed
            )
        except BaseException:
            queue.release()
            raise
        live = WavBroadcast(rate)
        task = asyncio.create_task(asyncio.to_thread(live.fill, stream))
        making.add(task)

        def done(task: asyncio.Task[None]) -> None:
            making.discard(task)
            queue.release()  # as soon as it is made, however slowly it is listened to

        task.add_done_callback(done)

        async def listen() -> Any:
            try:
                async for piece in live.listen():
                    yield piece
            finally:
                live.stop()
            with suppress(asyncio.CancelledError):
                await task

        return StreamingResponse(listen(), media_type="audio/wav")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    app.add_middleware(LimitMiddleware, most_bytes=limits.bytes)
    return app


def _parsed(kind: type[Body], content: bytes) -> Body:
    """A body of JSON. Raises UserError that says what is wrong with it, without quoting it."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:60]
        raise UserError(
            f"the request is not as expected: {place + ': ' if place else ''}{first['msg']}"
        ) from None


def _checked_codes(codes: list[list[int]], info: CodecInfo, limits: ServiceLimits) -> torch.Tensor:
    """(num_quantizers, frames) int64. Raises UserError and RequestError for what the codec cannot decode."""
    if len(codes) != info.num_quantizers or len({len(row) for row in codes}) != 1:
        raise UserError(f"codes are {info.num_quantizers} rows of one length, one for each quantizer")
    frames = len(codes[0])
    if not frames:
        raise UserError("there are no codes to decode")
    if frames > limits.seconds * info.frame_rate:
        raise RequestError(413, f"the codes are of more than {limits.seconds:g} s")
    for row, size in zip(codes, info.codebook_sizes, strict=True):
        if not 0 <= min(row) <= max(row) < size:
            raise UserError(f"codes go from 0 to {size - 1}")
    return torch.tensor(codes)
