"""The page of `codec-slm demo` as an application. It loads nothing from other sites."""

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from torch import nn

from recipes.apps.config import DemoLimits
from recipes.apps.demo.actions import StreamRegistry
from recipes.apps.demo.fragments import STYLE
from recipes.apps.demo.layout import Tabs
from slm import SpeechLM


def build_page(speaker: SpeechLM, registry: StreamRegistry, limits: DemoLimits) -> gr.Blocks:
    """The Gradio page of a loaded model and its codec."""
    tabs = Tabs(speaker, registry, limits)
    info = speaker.vocabulary.codec
    with gr.Blocks(title="codec-slm", analytics_enabled=False, delete_cache=(600, 3_600)) as page:
        gr.Markdown(
            f"# codec-slm\nSpeech as {info.frame_rate * info.num_quantizers:g} tokens a second ({info.name}, "
            f"{_millions(speaker.codec)}), and a language model over them ({_millions(speaker.model)})."
        )
        with gr.Tab("Codec"):
            tabs.add_codec()
        with gr.Tab("Speak"):
            tabs.add_speak()
        with gr.Tab("Continue"):
            tabs.add_continue()
    page.queue(max_size=limits.waiting, default_concurrency_limit=limits.concurrent, api_open=False)
    return page


def _millions(model: nn.Module) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{parameters / 1e6:.1f} million parameters"


def create_app(speaker: SpeechLM, limits: DemoLimits) -> FastAPI:
    """The page and the live speech as one application."""
    registry = StreamRegistry()
    page = build_page(speaker, registry, limits)
    # Gradio refuses files that nobody uploaded only once it counts as launched, which mounting alone does not do
    page.has_launched = True
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/speech/{name}.wav")
    async def speech(name: str) -> Response:
        live = registry.get(name)
        if live is None:
            return Response("this speech is no longer here", 404)
        return StreamingResponse(live.listen(), media_type="audio/wav", headers={"cache-control": "no-store"})

    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[],
        max_file_size=int(limits.megabytes * 2**20),
        show_error=False,  # but for what is raised as gr.Error
        ssr_mode=False,
        footer_links=[],
        theme=_theme(),
        css=STYLE,
    )


def _theme() -> gr.Theme:
    """The system's own fonts, so that none is fetched; colours with a contrast of at least 4.5 : 1."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
