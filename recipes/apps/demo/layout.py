"""The three tabs: controls to the left, results to the right; on a phone, results below."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from torch import Tensor

from codec.foundation import UserError
from recipes.apps.config import DemoLimits
from recipes.apps.demo.actions import (
    StreamRegistry,
    continue_recording,
    example_recording,
    speak,
    view_recording,
)
from recipes.apps.demo.fragments import alignment, error_html, facts_table, figure, player, status_html
from recipes.apps.uploads import read_upload
from slm import SamplingConfig, SpeechLM

# voices that the model has no name for
_OWN = "the model's own"
_ELSE = "somebody else's"
_SAMPLING = SamplingConfig()
_NARROWEST = 300  # pixels of a column: two of them do not fit on a phone

Changes = dict[Any, Any]  # components of the page, and what they show now
Handler = Callable[..., Iterator[Changes]]


@dataclass(frozen=True)
class Tabs:
    """The model and the settings that the handlers of all tabs use."""

    speaker: SpeechLM
    registry: StreamRegistry
    limits: DemoLimits

    @property
    def sampling_rate(self) -> int:
        """Of the audio that the page plays."""
        return self.speaker.vocabulary.codec.sampling_rate

    def heard(self, waveform: Tensor) -> tuple[int, np.ndarray]:
        """A waveform (samples,) as Gradio takes audio."""
        samples = (waveform.clamp(-1.0, 1.0) * 32_767.0).round().numpy()
        return self.sampling_rate, samples.astype(np.int16)

    # ---- Codec

    def add_codec(self) -> None:
        """Add the tab that turns a recording into tokens and back."""
        gr.Markdown(
            f"A recording becomes tokens, and the tokens become speech again. "
            f"Of a longer recording, the first {self.limits.seconds:g} s are taken."
        )
        with gr.Row():
            with _column(2):
                recording = _recorder("Recording")
                button = gr.Button("Encode and decode", variant="primary")
            with _column(3):
                status = gr.HTML(apply_default_css=False)
                with _column(visible=False) as results:
                    rebuilt = _audio("After the codec")
                    facts = gr.HTML(apply_default_css=False)
                    raster = gr.HTML(apply_default_css=False)
                    spectrograms = gr.HTML(apply_default_css=False)

        def work(path: str | None) -> Iterator[Changes]:
            yield {status: status_html(["Encoding and decoding …"]), results: _shown(False)}
            waveform, remark = read_upload(path, self.sampling_rate, self.limits)
            view = view_recording(self.speaker.codec, waveform)
            yield {
                status: status_html([remark] if remark else []),
                results: _shown(True),
                rebuilt: self.heard(view.reconstruction),
                facts: facts_table(view.facts),
                raster: figure(view.raster, "Tokens", "Every token as a dot, its number over time"),
                spectrograms: figure(
                    view.spectrograms, "Spectrograms", "Log-mel spectrograms before and after the codec"
                ),
            }

        outputs = [status, results, rebuilt, facts, raster, spectrograms]
        button.click(_with_errors(work, status, results), [recording], outputs, **_options(status))

    # ---- Speak

    def add_speak(self) -> None:
        """Add the tab for text to speech, which plays while it is made."""
        voices = list(self.speaker.vocabulary.voices) or [_OWN]
        with gr.Row():
            with _column(2):
                text = gr.Textbox(
                    label="Text",
                    lines=3,
                    max_length=self.limits.characters,
                    value="Nobody was in a hurry. The tide was low, and the boats lay on their sides.",
                )
                clones = self.speaker.capabilities.prompts
                own = None if clones else "The model speaks in its own voices only: it does not clone others."
                voice = gr.Dropdown(voices, label="Voice", info=own, value=voices[0])
                prompt: Any
                words: Any
                if clones:
                    prompt = _recorder("Or a recording to speak like", example=False)
                    words = gr.Textbox(label="What is said in that recording")
                else:
                    prompt, words = gr.State(None), gr.State("")
                controls = _sampling_controls()
                with gr.Row():
                    say = gr.Button("Speak", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=120)
            with _column(3):
                status = gr.HTML(apply_default_css=False)
                with _column(visible=False) as results:
                    live = gr.HTML(apply_default_css=False)
                    times = gr.HTML(apply_default_css=False)
                    whole = _audio("Whole speech", visible=False)
                playing = gr.State(None)  # its name on the registry

        def work(text: str, voice: str, path: str | None, words: str, *sampling: float) -> Iterator[Changes]:
            hidden = gr.update(value=None, visible=False)
            yield {
                status: status_html(["Beginning …"]),
                results: _shown(False),
                live: "",
                times: "",
                whole: hidden,
            }
            chosen = None if voice == _OWN else voice
            views = speak(
                self.speaker, self.registry, self.limits, text, chosen, path, words, *_sampling(sampling)
            )
            drawn = None
            for view in views:
                changes: Changes = {
                    status: status_html([view.status, *view.cuts]),
                    times: alignment(view.spans),
                }
                if view.live != drawn:  # the player is drawn once: drawn again, it would start again
                    drawn = view.live
                    changes |= {live: player(drawn), playing: drawn, results: _shown(True)}
                if view.audio is not None:
                    changes |= {whole: gr.update(value=self.heard(view.audio), visible=True)}
                yield changes

        gr.on(
            [say.click, text.submit],
            _with_errors(work, status, results),
            [text, voice, prompt, words, *controls],
            [status, results, live, times, whole, playing],
            **_options(status),
        )
        # not in the queue: who wants to stop does not wait
        stop.click(self.registry.stop, playing, None, queue=False, api_visibility="private")

    # ---- Continue

    def add_continue(self) -> None:
        """Add the tab that continues a recording several times."""
        most = self.limits.continuations
        gr.Markdown("The model goes on from where a recording ends, each time in another way.")
        with gr.Row():
            with _column(2):
                recording = _recorder("Recording")
                voices = [_ELSE, *self.speaker.vocabulary.voices]
                voice = gr.Dropdown(voices, label="Whose voice it is", value=_ELSE)
                longest = min(20, int(self.limits.seconds))
                seconds = gr.Slider(1, longest, 5, step=1, label="Seconds to go on, at most")
                count = gr.Slider(1, most, min(3, most), step=1, label="Continuations")
                controls = _sampling_controls()
                button = gr.Button("Continue", variant="primary")
            with _column(3):
                status = gr.HTML(apply_default_css=False)
                with _column(visible=False) as results:
                    outputs = [
                        _audio(f"Continuation {number + 1}", visible=number == 0) for number in range(most)
                    ]

        def work(
            path: str | None, voice: str, seconds: float, count: float, *sampling: float
        ) -> Iterator[Changes]:
            nothing = {output: gr.update(value=None, visible=False) for output in outputs}
            yield {status: status_html(["Listening to the recording …"]), results: _shown(False), **nothing}
            chosen = None if voice == _ELSE else voice
            found = continue_recording(
                self.speaker, self.limits, path, chosen, seconds, int(count), *_sampling(sampling)
            )
            lines: list[str] = []
            for output, (result, line) in zip(outputs, found, strict=False):
                lines.append(f"{len(lines) + 1} of {int(count)}: {line}")
                audio = gr.update(value=self.heard(result.audio), visible=True)
                yield {status: status_html(lines), results: _shown(True), output: audio}

        button.click(
            _with_errors(work, status, results),
            [recording, voice, seconds, count, *controls],
            [status, results, *outputs],
            **_options(status),
        )


def _with_errors(work: Handler, status: Any, results: Any) -> Handler:
    """A handler that shows an error in place of the status and hides the results of an earlier attempt.

    It shows a UserError in full. Any other error goes to standard error, and the user sees a general message.
    """

    def handler(*values: Any) -> Iterator[Changes]:
        try:
            yield from work(*values)
        except UserError as error:
            yield {status: error_html(str(error)), results: _shown(False)}
        except Exception:
            traceback.print_exc()
            yield {status: error_html("something went wrong here"), results: _shown(False)}

    return handler


def _options(status: Any) -> dict[str, Any]:
    # private: for programs there is `codec-slm serve`
    return {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": status}


def _column(scale: int = 1, visible: bool = True) -> Any:
    return gr.Column(scale=scale, min_width=_NARROWEST, visible=visible)


def _shown(visible: bool) -> Any:
    return gr.update(visible=visible)


def _audio(label: str, visible: bool = True) -> Any:
    # only "download": the other button would publish the recording on somebody's site
    return gr.Audio(label=label, interactive=False, visible=visible, buttons=["download"])


def _recorder(label: str, example: bool = True) -> Any:
    recorder = gr.Audio(sources=["upload", "microphone"], type="filepath", label=label, buttons=[])
    if example:
        gr.Button("Take an example", size="sm").click(
            example_recording, None, recorder, api_visibility="private", show_progress="hidden"
        )
    return recorder


def _sampling_controls() -> list[Any]:
    with gr.Accordion("Sampling", open=False):
        return [
            gr.Slider(
                0.0, 1.5, _SAMPLING.temperature, step=0.05, label="Temperature (0: always the likeliest)"
            ),
            gr.Slider(0.05, 1.0, _SAMPLING.top_p, step=0.05, label="Top p"),
            gr.Number(0, label="Seed", precision=0, minimum=0),
        ]


def _sampling(values: tuple[float, ...]) -> tuple[SamplingConfig, int]:
    """The values of the controls as a sampling config and a seed."""
    temperature, top_p, seed = values
    return SamplingConfig(temperature, 0, top_p), int(seed or 0)
