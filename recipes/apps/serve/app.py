"""The application. `/v1/audio/speech` and `/v1/models` are OpenAI's; `/docs` tells of all routes.

curl --data-binary @boats.wav localhost:8000/encode > codes.json
curl -d @codes.json localhost:8000/decode > back.wav
curl -d '{"text": "Nobody was in a hurry."}' localhost:8000/speak > a.wav
curl -d '{"text": "Nobody was in a hurry.", "stream": true}' localhost:8000/speak | aplay
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from torch import Tensor

from codec import CodecInfo
from codec.foundation import UserError
from recipes.apps.config import ServiceLimits
from recipes.apps.serve.bodies import (
    AudioFormat,
    ContinueOptions,
    DecodeBody,
    EncodeAnswer,
    HealthAnswer,
    LimitsAnswer,
    ModelAnswer,
    ModelsAnswer,
    SpeakBody,
    Speaking,
    SpeechBody,
    TranscribeAnswer,
)
from recipes.apps.serve.encoding import MEDIA_TYPES, encode_audio, resampler_for
from recipes.apps.serve.engine import RequestQueue, Speech, SpeechEngine
from recipes.apps.serve.metrics import ServiceMetrics
from recipes.apps.serve.middleware import GuardMiddleware, RequestError, error_answer
from recipes.apps.uploads import Upload, read_recording
from recipes.apps.wav_stream import pcm16, wav_header
from recipes.reporting.page import as_html, as_markdown
from slm import SpeechLM
from slm.generation.results import CHUNK_FRAMES, stretched

_WHOLE_FRAMES = (48,)  # decoded together where nobody listens yet: cheaper
Content = TypeVar("Content", bound=BaseModel)


def create_app(
    speaker: SpeechLM,
    limits: ServiceLimits,
    model: str = "codec-slm",
    api_key: str | None = None,
    cors: Sequence[str] = (),
) -> FastAPI:
    """A FastAPI application around a loaded model and its codec, which clients call `model`.

    api_key: what requests have to bring. cors: origins whose pages may ask; "*": all.
    """
    # FastAPI's own pages of documentation load scripts from elsewhere
    app = FastAPI(title="codec-slm", docs_url=None, redoc_url=None, redirect_slashes=False)
    info, codec = CodecInfo.of(speaker.codec), speaker.codec
    rate = info.sampling_rate
    metrics = ServiceMetrics()
    queue, engine = RequestQueue(limits), SpeechEngine(speaker, limits, metrics)
    metrics.watch_queue(lambda: queue.waiting + engine.waiting)

    @app.get("/health")
    async def health() -> HealthAnswer:
        """What is served."""
        return HealthAnswer(
            model=model,
            codec=info.to_dict(),
            voices=list(speaker.vocabulary.voices),
            limits=LimitsAnswer(
                megabytes=limits.megabytes, seconds=limits.seconds, characters=limits.characters
            ),
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Requests, seconds of audio, the length of the queue, the time to the first audio, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        return as_html(as_markdown("service", spec=app.openapi()), Path())

    @app.get("/v1/models")
    async def models() -> ModelsAnswer:
        """The model that is served, for OpenAI's clients."""
        return ModelsAnswer(data=[ModelAnswer(id=model)])

    @app.post(
        "/v1/audio/speech", response_class=Response, openapi_extra=_takes(SpeechBody), **_gives(*MEDIA_TYPES)
    )
    async def openai_speech(request: Request) -> Response:
        """A text -> speech, for OpenAI's clients."""
        body = _parsed(SpeechBody, await request.body())
        if body.model != model:
            raise RequestError(404, f"there is no model {body.model[:64]!r} here, but {model!r}")
        body.stream = body.stream or body.stream_format is not None
        return await said(body.input, body, "/v1/audio/speech")

    @app.post("/speak", response_class=Response, openapi_extra=_takes(SpeakBody), **_gives(*MEDIA_TYPES))
    async def speak(request: Request) -> Response:
        """A text -> speech."""
        body = _parsed(SpeakBody, await request.body())
        return await said(body.text, body, "/speak")

    async def said(text: str, body: Speaking, route: str) -> Response:
        if len(text) > limits.characters:
            raise RequestError(413, f"the text is longer than {limits.characters} characters")
        is_live = body.stream and body.speed == 1 and body.response_format in ("wav", "pcm")
        stream = await asyncio.to_thread(
            speaker.stream,
            text,
            body.voice,
            sampling=body.sampling,
            seed=body.seed,
            chunk_frames=CHUNK_FRAMES if is_live else _WHOLE_FRAMES,
        )
        speech = engine.say(stream)
        if is_live:
            pieces = live(speech, body.response_format, route)
            first = await anext(pieces)  # before the status is sent: until then it can be an error
            return StreamingResponse(_joined(first, pieces), media_type=MEDIA_TYPES[body.response_format])
        audio = torch.cat([block async for block in speech])
        return await whole(audio, body.response_format, route, body.speed)

    async def live(speech: Speech, response_format: AudioFormat, route: str) -> AsyncIterator[bytes]:
        resampler, to_rate = resampler_for(response_format, rate)
        header = wav_header(to_rate) if response_format == "wav" else b""
        async for block in speech:
            metrics.audio.labels(route).inc(len(block) / rate)
            yield header + pcm16(resampler.push(block))
            header = b""
        yield header + pcm16(resampler.finish())

    async def whole(audio: Tensor, response_format: AudioFormat, route: str, speed: float = 1.0) -> Response:
        metrics.audio.labels(route).inc(len(audio) / rate)

        def work() -> bytes:
            return encode_audio(audio if speed == 1 else stretched(audio, speed), rate, response_format)

        return Response(await asyncio.to_thread(work), media_type=MEDIA_TYPES[response_format])

    def read(content: bytes, route: str) -> Tensor:
        """(samples,) of an upload."""
        recording = read_recording(Upload(content), rate, limits.seconds)
        if not recording.is_whole:
            raise RequestError(413, f"the recording is longer than {limits.seconds:g} s")
        metrics.audio.labels(route).inc(len(recording.waveform) / rate)
        return recording.waveform

    @app.post("/encode", openapi_extra=_TAKES_AUDIO)
    async def encode(request: Request) -> EncodeAnswer:
        """An audio file as the body -> its codes, and who speaks."""
        content = await request.body()

        def work() -> EncodeAnswer:
            waveform = read(content, "/encode")
            encoded = codec.encode_blocks([waveform.to(speaker.model.device)])
            return EncodeAnswer(
                codes=encoded.audio_codes[0].tolist(),
                fingerprint=info.fingerprint,
                frame_rate=info.frame_rate,
                seconds=len(waveform) / rate,
                voice=None if encoded.voice is None else encoded.voice[0].tolist(),
            )

        async with queue.slot():
            return await asyncio.to_thread(work)

    @app.post("/decode", response_class=Response, openapi_extra=_takes(DecodeBody), **_gives("wav"))
    async def decode(request: Request) -> Response:
        """Codes -> a WAV file."""
        body = _parsed(DecodeBody, await request.body())
        codes, samples = _checked_codes(body, info, limits)
        voice = _checked_voice(body.voice, info)

        def work() -> Tensor:
            device = speaker.model.device
            with torch.inference_mode():
                audio = codec.decode(
                    codes[None].to(device), voice=None if voice is None else voice.to(device)
                ).audio_values
            return audio[0, 0, :samples].float().cpu()

        async with queue.slot():
            audio = await asyncio.to_thread(work)
        return await whole(audio, "wav", "/decode")

    @app.post("/continue", response_class=Response, openapi_extra=_TAKES_AUDIO, **_gives(*MEDIA_TYPES))
    async def go_on(request: Request, options: Annotated[ContinueOptions, Query()]) -> Response:
        """An audio file as the body -> it and how it may go on."""
        if options.seconds > limits.seconds:
            raise RequestError(413, f"a continuation takes up to {limits.seconds:g} s")
        content = await request.body()

        def work() -> Tensor:
            result = speaker.continue_speech(
                speaker.prompt(read(content, "/continue"), rate),
                options.seconds,
                voice=options.voice,
                sampling=options.sampling,
                seed=options.seed,
            )
            return result.audio[round(result.begins * rate) if options.only_new else 0 :]

        async with queue.slot():
            audio = await asyncio.to_thread(work)
        return await whole(audio, options.response_format, "/continue")

    @app.post("/transcribe", openapi_extra=_TAKES_AUDIO)
    async def transcribe(request: Request) -> TranscribeAnswer:
        """An audio file as the body -> what it says."""
        content = await request.body()

        def work() -> TranscribeAnswer:
            heard = speaker.transcribe_recording(read(content, "/transcribe"), rate)
            return TranscribeAnswer(text=heard.text, cuts=heard.cuts)

        async with queue.slot():
            return await asyncio.to_thread(work)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return error_answer(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def query_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_answer(request.url.path, _not_as_expected(error.errors()[0]))

    app.add_middleware(GuardMiddleware, most_bytes=limits.bytes, api_key=api_key, metrics=metrics)
    if cors:
        app.add_middleware(CORSMiddleware, allow_origins=cors, allow_methods=["*"], allow_headers=["*"])
    return app


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TAKES_AUDIO = {"requestBody": {"required": True, "content": {"audio/*": _BINARY}}}


def _takes(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body of JSON that is read whatever its Content-Type."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": kind.model_json_schema()}},
        }
    }


def _gives(*formats: AudioFormat) -> dict[str, Any]:
    """What OpenAPI says of an answer of audio."""
    content = {MEDIA_TYPES[name]: _BINARY for name in formats}
    return {"responses": {200: {"description": "audio", "content": content}}}


async def _joined(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece


def _parsed(kind: type[Content], content: bytes) -> Content:
    """A body of JSON. Raises UserError that says what is wrong with it, without quoting it."""
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise _not_as_expected(first) from None


def _not_as_expected(error: Any) -> UserError:
    place = ".".join(str(part) for part in error["loc"])[:60]
    return UserError(f"the request is not as expected: {place + ': ' if place else ''}{error['msg']}")


def _checked_codes(body: DecodeBody, info: CodecInfo, limits: ServiceLimits) -> tuple[Tensor, int]:
    """(num_quantizers, frames) int64, and samples. Raises UserError and RequestError for what cannot be decoded."""
    codes = body.codes
    if body.fingerprint not in (None, info.fingerprint):
        raise UserError(
            f"these codes are those of another codec ({body.fingerprint[:32]}), "
            f"not of {info.name} ({info.fingerprint})"
        )
    if body.frame_rate not in (None, info.frame_rate):
        raise UserError(f"frame_rate is {body.frame_rate:g}, that of {info.name} is {info.frame_rate:g}")
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
    samples = frames * info.hop_length
    if body.seconds is not None:
        samples = round(body.seconds * info.sampling_rate)
        if -(-samples // info.hop_length) != frames:
            raise UserError(f"seconds is {body.seconds:g}, the codes are of {frames / info.frame_rate:g} s")
    return torch.tensor(codes), samples


def _checked_voice(numbers: list[float] | None, info: CodecInfo) -> Tensor | None:
    """(1, voice_dim). Raises UserError for what is no voice of this codec."""
    if numbers is None:
        return None
    voice = torch.tensor([numbers])
    if len(numbers) != info.voice_dim or not voice.isfinite().all():
        raise UserError(f"a voice is {info.voice_dim} finite numbers for {info.name}")
    return voice
