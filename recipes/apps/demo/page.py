"""The page of `codec-slm demo` as an application. It loads nothing from other sites."""

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from huggingface_hub.repocard import metadata_load
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import iterate_in_threadpool
from torch import nn

from codec import Codec
from codec.foundation import UserError
from recipes.apps.config import DemoLimits
from recipes.apps.demo.actions import Event, TokenColors, continue_recording, speak, through_codec
from recipes.apps.serve.metrics import ServiceMetrics
from recipes.apps.serve.middleware import GuardMiddleware, error_answer
from recipes.apps.uploads import read_upload
from slm import SamplingConfig, SpeechLM

_HERE = Path(__file__).parent
_EXAMPLE = _HERE.parents[1] / "bundled" / "sample_corpus" / "wavs" / "slt-0014.flac"
_GUESS, _ELSE = "guess", "else"  # voices that the model has no name for
_SENTENCES = (
    "Nobody was in a hurry. The tide was low, and the boats lay on their sides.",
    "Have you seen my blue umbrella?",
    "The train at 7:45 costs $12, and it is rarely late.",
    "She wrote the answer in a small red book. [pause 0.5] Then she closed it.",
    "Rain fell softly on the old tin roof.",
)
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src data:; media-src blob:; style-src 'self' 'unsafe-inline'",
    "cache-control": "no-cache",
}


def create_app(speaker: SpeechLM, limits: DemoLimits, codec: Codec | None = None) -> FastAPI:
    """The page, and the three requests that it sends, which are answered by events in lines of JSON.

    codec: what the tab Codec shows; by default the model's own.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    rate = speaker.vocabulary.codec.sampling_rate
    colors, line = TokenColors(speaker.codec), WaitingLine(limits)
    page = _written(speaker, limits, codec)
    shown, shown_colors = (speaker.codec, colors) if codec is None else (codec, TokenColors(codec))

    def answer(begin: Callable[[], Iterator[Event]]) -> StreamingResponse:
        events = line.serve(_told(begin))
        return StreamingResponse(
            (json.dumps(event) + "\n" async for event in events), media_type="application/x-ndjson"
        )

    @app.get("/", response_class=HTMLResponse)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    @app.get("/example.flac")
    async def example() -> FileResponse:
        return FileResponse(_EXAMPLE)

    Recording = Annotated[bytes, File()]
    Temperature = Annotated[float, Form(ge=0, le=5)]
    TopP = Annotated[float, Form(gt=0, le=1)]
    Seed = Annotated[int, Form(ge=0, lt=2**63)]

    @app.post("/speak")
    async def say(
        text: Annotated[str, Form()],
        temperature: Temperature,
        top_p: TopP,
        seed: Seed,
        voice: Annotated[str | None, Form()] = None,
        recording: Recording = b"",
        words: Annotated[str, Form()] = "",
    ) -> StreamingResponse:
        def begin() -> Iterator[Event]:
            if len(text) > limits.characters:
                raise UserError(f"the text is longer than {limits.characters} characters")
            prompt = None
            if recording:
                waveform, _ = read_upload(recording, rate, limits)
                prompt = speaker.prompt(waveform, rate, words.strip() or None)
            sampling = SamplingConfig(temperature, 0, top_p)
            return speak(speaker.stream(text, None if prompt else voice, prompt, sampling, seed=seed), colors)

        return answer(begin)

    @app.post("/codec")
    async def encode(recording: Recording = b"") -> StreamingResponse:
        def begin() -> Iterator[Event]:
            uploaded = read_upload(recording, shown.config.sampling_rate, limits)
            return through_codec(shown, shown_colors, *uploaded)

        return answer(begin)

    @app.post("/continue")
    async def go_on(
        seconds: Annotated[float, Form(gt=0, le=limits.seconds)],
        count: Annotated[int, Form(ge=1, le=limits.continuations)],
        temperature: Temperature,
        top_p: TopP,
        seed: Seed,
        voice: Annotated[str, Form()] = _GUESS,
        recording: Recording = b"",
    ) -> StreamingResponse:
        def begin() -> Iterator[Event]:
            waveform, remark = read_upload(recording, rate, limits)
            named = None if voice in (_GUESS, _ELSE) else voice
            sampling = SamplingConfig(temperature, 0, top_p)
            return continue_recording(
                speaker, colors, waveform, named, voice == _GUESS, seconds, count, sampling, seed, remark
            )

        return answer(begin)

    @app.exception_handler(RequestValidationError)
    async def not_as_expected(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return error_answer("", UserError(f"{first['loc'][-1]}: {first['msg']}"))

    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    app.add_middleware(GuardMiddleware, most_bytes=limits.bytes, api_key=None, metrics=ServiceMetrics())
    return app


class WaitingLine:
    """First come, first served: `limits.concurrent` at once; `limits.waiting` more may wait."""

    def __init__(self, limits: DemoLimits) -> None:
        self._limits = limits
        self._line: list[object] = []  # those who are served stand in front
        self._moved = asyncio.Event()

    async def serve(self, events: Iterator[Event]) -> AsyncIterator[Event]:
        """How many come before, whenever that changes; then the events, each made in a thread."""
        if len(self._line) >= self._limits.concurrent + self._limits.waiting:
            yield {"error": "too many are waiting: try again in a moment"}
            return
        me = object()
        self._line.append(me)
        try:
            told = 0
            while (before := self._line.index(me) + 1 - self._limits.concurrent) > 0:
                moved = self._moved
                if before != told:
                    yield {"queue": before}
                told = before
                await moved.wait()
            async for event in iterate_in_threadpool(events):
                yield event
        finally:
            self._line.remove(me)
            self._moved.set()
            self._moved = asyncio.Event()


def _told(begin: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """The events of some work, and why it ended early: a UserError in full, of any other error nothing."""
    try:
        yield from begin()
    except UserError as error:
        yield {"error": str(error)}
    except Exception:
        traceback.print_exc()
        yield {"error": "something went wrong here"}


def _written(speaker: SpeechLM, limits: DemoLimits, codec: Codec | None) -> str:
    templates = Environment(
        loader=FileSystemLoader(_HERE), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    return templates.get_template("page.html.j2").render(
        info=speaker.vocabulary.codec,
        codec_size=_millions(speaker.codec),
        model_size=_millions(speaker.model),
        heard=heard_voices(speaker.codec),
        other_codec=codec and codec.config.name,
        other_heard=codec and heard_voices(codec),
        voices=list(speaker.vocabulary.voices),
        clones=speaker.capabilities.prompts,
        sentences=[sentence for sentence in _SENTENCES if len(sentence) <= limits.characters],
        sampling=SamplingConfig(),
        limits=limits,
        guess=_GUESS,
        someone_else=_ELSE,
    )


def heard_voices(codec: Codec) -> str | None:
    """Whose voices a codec was trained on: `voices` in the header of its model card; None where it does not say."""
    directory = getattr(codec.config, "_name_or_path", "")
    card = Path(directory) / "README.md"
    if not directory or not card.is_file():
        return None
    return (metadata_load(card) or {}).get("voices")


def _millions(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} million parameters"
