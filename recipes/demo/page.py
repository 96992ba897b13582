"""The page: three tabs around the functions that do the work. Nothing is loaded from elsewhere."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from codec.runs import UserError
from recipes.demo.codec_tab import view_recording
from recipes.demo.limits import DemoLimits
from recipes.demo.speech_tabs import LiveShelf, alignment, continue_recording, player, speak
from recipes.demo.uploads import read_upload
from slm import SamplingConfig, SpeechLM

if TYPE_CHECKING:
    from fastapi import FastAPI
    from gradio import Blocks

_UNNAMED = "unknown"  # a voice that the model has no name for
_SAMPLING = SamplingConfig()
_STYLE = """
.alignment { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; list-style: none; }
.alignment li { border: 1px solid currentColor; border-radius: .5rem; padding: .25rem .5rem; }
.alignment time { display: block; font-size: .75rem; opacity: .75; }
audio { width: 100%; }
"""


def build_page(speaker: SpeechLM, shelf: LiveShelf, limits: DemoLimits) -> "Blocks":
    """The Gradio page of a loaded model and its codec."""
    import gradio as gr

    info = speaker.vocabulary.codec
    rate = info.sampling_rate
    voices = list(speaker.vocabulary.voices)
    clones = speaker.habits.prompts

    def recorder(label: str) -> Any:
        return gr.Audio(sources=["upload", "microphone"], type="filepath", label=label)

    def sampling_controls() -> list[Any]:
        with gr.Accordion("How tokens are drawn", open=False):
            return [
                gr.Slider(
                    0.0, 1.5, _SAMPLING.temperature, step=0.05, label="Temperature (0: always the likeliest)"
                ),
                gr.Slider(0.05, 1.0, _SAMPLING.top_p, step=0.05, label="Top p"),
                gr.Number(0, label="Seed", precision=0, minimum=0),
            ]

    def on_codec(path: str | None) -> tuple[Any, ...]:
        with _as_page_errors():
            waveform, remark = read_upload(path, rate, limits)
            view = view_recording(speaker.codec, waveform)
        facts = [list(fact) for fact in view.facts]
        return (rate, _int16(view.reconstruction)), view.raster, view.spectrograms, facts, remark

    def on_speak(
        text: str,
        voice: str,
        recording: str | None,
        words: str,
        temperature: float,
        top_p: float,
        seed: float,
    ) -> Iterator[tuple[Any, ...]]:
        chosen = None if voice == _UNNAMED else voice
        shown = None
        with _as_page_errors():
            sampling = SamplingConfig(temperature, 0, top_p)
            for view in speak(
                speaker, shelf, limits, text, chosen, recording, words, sampling, int(seed or 0)
            ):
                # the player is drawn once: drawn again, it would start again
                live = gr.skip() if view.live == shown else player(view.live)
                shown = view.live
                audio = None if view.audio is None else (rate, _int16(view.audio))
                yield live, " ".join([view.status, *view.cuts]), alignment(view.spans), audio

    def on_continue(
        recording: str | None,
        voice: str,
        seconds: float,
        count: float,
        temperature: float,
        top_p: float,
        seed: float,
    ) -> Iterator[list[Any]]:
        found: list[Any] = []
        chosen = None if voice == _UNNAMED else voice
        with _as_page_errors():
            sampling = SamplingConfig(temperature, 0, top_p)
            for result, line in continue_recording(
                speaker, limits, recording, chosen, seconds, int(count), sampling, int(seed or 0)
            ):
                found.append((rate, _int16(result.audio)))
                status = f"{len(found)} of {int(count)}. {line}"
                yield [status, *found, *[None] * (limits.continuations - len(found))]

    with gr.Blocks(title="codec-slm", analytics_enabled=False, delete_cache=(600, 3_600)) as page:
        gr.Markdown(
            f"# codec-slm\n{info.name}: {info.frame_rate * info.num_quantizers:g} tokens a second of speech."
        )
        with gr.Tab("Codec"):
            gr.Markdown(f"A recording as tokens, and back. At most {limits.seconds:g} s are taken.")
            recording = recorder("Recording")
            button = gr.Button("Encode and decode", variant="primary")
            rebuilt = gr.Audio(label="After the codec", interactive=False)
            remark = gr.Markdown()
            facts = gr.Dataframe(
                headers=["what", "how much"], label="Numbers", interactive=False, datatype="str"
            )
            raster = gr.Image(label="Tokens", alt_text="Every token as a dot over time", format="png")
            spectrograms = gr.Image(
                label="Spectrograms", alt_text="Log-mel spectrograms before and after the codec", format="png"
            )
            button.click(on_codec, recording, [rebuilt, raster, spectrograms, facts, remark], **_private())
        with gr.Tab("Speak"):
            text = gr.Textbox(
                label="Text", lines=3, max_length=limits.characters, value="Nobody was in a hurry."
            )
            voice = gr.Dropdown(voices or [_UNNAMED], label="Voice", value=(voices or [_UNNAMED])[0])
            if clones:
                prompt = recorder("Or a recording to speak like")
                prompt_text = gr.Textbox(label="What is said in that recording")
            else:
                gr.Markdown("This model speaks in its own voices only: it does not clone others.")
                prompt, prompt_text = gr.State(None), gr.State("")
            controls = sampling_controls()
            with gr.Row():
                say = gr.Button("Speak", variant="primary")
                stop = gr.Button("Stop")
            live = gr.HTML(label="Live")
            status = gr.Markdown()
            words = gr.HTML(label="Words")
            spoken = gr.Audio(label="Speech", interactive=False)
            saying = say.click(
                on_speak,
                [text, voice, prompt, prompt_text, *controls],
                [live, status, words, spoken],
                **_private(),
            )
            stop.click(None, None, None, cancels=[saying], **_private())
        with gr.Tab("Continue"):
            gr.Markdown("The model goes on from where a recording ends, several times.")
            beginning = recorder("Recording")
            who = gr.Dropdown([_UNNAMED, *voices], label="Whose voice it is", value=_UNNAMED)
            seconds = gr.Slider(1, min(20, int(limits.seconds)), 5, step=1, label="Seconds to go on, at most")
            count = gr.Slider(
                1, limits.continuations, min(3, limits.continuations), step=1, label="Continuations"
            )
            controls = sampling_controls()
            go = gr.Button("Continue", variant="primary")
            said = gr.Markdown()
            outputs = [
                gr.Audio(label=f"Continuation {number + 1}", interactive=False)
                for number in range(limits.continuations)
            ]
            go.click(on_continue, [beginning, who, seconds, count, *controls], [said, *outputs], **_private())
    page.queue(max_size=limits.waiting, default_concurrency_limit=limits.concurrent, api_open=False)
    return page


def create_app(speaker: SpeechLM, limits: DemoLimits) -> "FastAPI":
    """The page, and beside it the speech that is being made, as one application."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import Response, StreamingResponse

    shelf = LiveShelf()
    page = build_page(speaker, shelf, limits)
    # Gradio refuses files that nobody uploaded only once it counts as launched, which mounting alone does not do
    page.has_launched = True
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/speech/{name}.wav")
    async def speech(name: str) -> Response:
        live = shelf.get(name)
        if live is None:
            return Response("this speech is no longer here", 404)
        return StreamingResponse(live.listen(), media_type="audio/wav", headers={"cache-control": "no-store"})

    # fonts of the system: the page works without a network
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[],
        max_file_size=int(limits.megabytes * 2**20),
        show_error=False,  # but for what is raised as gr.Error
        ssr_mode=False,
        footer_links=[],
        theme=theme,
        css=_STYLE,
    )


class _as_page_errors:
    """What the user can mend is shown on the page; anything else says nothing of the inside."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        import gradio as gr

        if isinstance(error, UserError):
            raise gr.Error(str(error), print_exception=False) from None
        if isinstance(error, Exception):
            raise gr.Error("something went wrong here") from error


def _private() -> dict[str, Any]:
    """For programs there is `codec-slm serve`."""
    return {"api_visibility": "private"}


def _int16(waveform: Tensor) -> np.ndarray:
    return (waveform.clamp(-1.0, 1.0) * 32_767.0).round().numpy().astype(np.int16)
