"""What the page does: a recording through the codec, a text spoken, a recording continued.

Each is an iterator of events, which the page gets as lines of JSON. The fields of an event:

    track: the name of what can be heard; what follows is added to it
    audio: the next samples, 16 bits, base64
    tokens: the next tokens, for each quantizer [[number, colour], ...]
    words: [[text, start, end], ...] in seconds
    seam: where the continuation begins, in seconds
    facts: [[what, how much], ...]
    progress: a line that changes often; status: a line that is read out
    queue: how many are served before (`page`); error: why there is no more (`page`)
"""

import base64
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from codec import Codec
from codec.metrics import CodebookUse, log_mel_l1
from recipes.apps.wav_stream import pcm16
from slm import SamplingConfig, SpeechLM, SpeechStream, SpokenSpan
from slm.generation.results import CUT_MEANS
from slm.models.likelihood import likeliest_voice

Event = dict[str, Any]
_CHROMA = 0.11  # of OKLab: about the most that all hues have at this lightness
_GUESSED_FROM = 10.0  # seconds of a recording


class TokenColors:
    """Colours of a codec's tokens: what is close in the codebook looks alike.

    The first two principal components of a codebook are the axes a and b of OKLab, in which equal distances look equal;
    95 % of the tokens keep their place, the others go to the rim.
    """

    def __init__(self, codec: Codec) -> None:
        self._of = [
            _two_components(codec.effective_codebook(number).detach().float().cpu())
            for number in range(codec.config.num_quantizers)
        ]

    def __call__(self, codes: Tensor) -> list[list[tuple[int, str]]]:
        """Codes (quantizers, frames) -> of each quantizer's tokens the number and the axes a and b, for CSS."""
        return [
            [(token, "{:.3f} {:.3f}".format(*colors[token].tolist())) for token in row]
            for row, colors in zip(codes.tolist(), self._of, strict=False)
        ]


def _two_components(codebook: Tensor) -> Tensor:
    """(codes, dim) -> the places (codes, 2) along the two axes of largest variance, within the radius _CHROMA."""
    centred = codebook.double() - codebook.double().mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)  # (dim, 2)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # an axis has no sign of its own
    places = torch.nn.functional.pad(centred @ axes, (0, 2 - axes.shape[1]))
    radius = places.norm(dim=1, keepdim=True)
    return _CHROMA * places / radius.maximum(radius.quantile(0.95)).clamp(min=1e-9)


def _track(
    name: str,
    audio: Tensor,
    tokens: list[list[tuple[int, str]]],
    spans: Sequence[SpokenSpan] = (),
    **more: Any,
) -> Event:
    words = [[span.text.strip(), round(span.start, 3), round(span.end, 3)] for span in spans]
    sound = base64.b64encode(pcm16(audio)).decode()
    return {"track": name, "audio": sound, "tokens": tokens, "words": words, **more}


def through_codec(codec: Codec, colors: TokenColors, waveform: Tensor, remark: str = "") -> Iterator[Event]:
    """Encode and decode (samples,) at the codec's rate."""
    with torch.inference_mode():
        encoded = codec.encode_blocks([waveform.to(codec.device)])
        codes = encoded.audio_codes[0].cpu()  # (quantizers, frames)
        audio = codec.decode(encoded.audio_codes, voice=encoded.voice).audio_values[0, 0].float().cpu()
    audio = audio[: len(waveform)]
    tokens = colors(codes)
    yield _track("Recording", waveform, tokens)
    yield _track("Codec", audio, tokens, facts=_facts(codes, waveform, audio, codec.config))
    yield {"status": f"Done: {len(waveform) / codec.config.sampling_rate:.1f} s. {remark}".strip()}


def _facts(codes: Tensor, waveform: Tensor, audio: Tensor, config: Any) -> list[tuple[str, str]]:
    use = CodebookUse(list(config.codebook_sizes))
    use.update(codes)
    distance = log_mel_l1(waveform, audio, config.sampling_rate)
    return [
        ("Tokens", f"{codes.numel():,} ({config.frame_rate * config.num_quantizers:g} a second)"),
        (
            "Different tokens",
            f"{sum(entry.used for entry in use.statistics()):,} of {sum(config.codebook_sizes):,}",
        ),
        ("Bitrate", f"{use.nominal_bitrate(config.frame_rate):.0f} bit/s"),
        ("Bitrate by how often each token occurs", f"{use.entropy_bitrate(config.frame_rate):.0f} bit/s"),
        ("Log-mel distance (L1)", "–" if math.isnan(distance) else f"{distance:.2f}"),
    ]


def speak(stream: SpeechStream, colors: TokenColors) -> Iterator[Event]:
    """Say a text, chunk by chunk."""
    sent = 0
    for chunk in stream:
        codes = stream.codes[:, sent:]
        sent += codes.shape[1]
        yield _track("Speech", chunk.audio, colors(codes), chunk.spans) | {
            "progress": f"{chunk.progress.words} of {chunk.progress.total_words} words"
        }
    lines = [
        f"{stream.seconds:.1f} s of speech in {stream.working_seconds:.1f} s, "
        f"the first of it after {stream.first_audio_seconds:.2f} s.",
        *stream.cuts,
    ]
    yield {"status": "\n".join(lines)}


def continue_recording(
    speaker: SpeechLM,
    colors: TokenColors,
    waveform: Tensor,
    voice: str | None,
    guess: bool,
    seconds: float,
    count: int,
    sampling: SamplingConfig,
    seed: int,
    remark: str = "",
) -> Iterator[Event]:
    """Continue (samples,) at the codec's rate `count` times, `guess`: in the voice that the model takes it for.

    Raises UserError.
    """
    vocabulary = speaker.vocabulary
    prompt = speaker.prompt(waveform, vocabulary.codec.sampling_rate)
    lines = [remark] if remark else []
    if guess:
        ids = vocabulary.codes_to_ids(prompt.codes)
        most = round(_GUESSED_FROM * vocabulary.codec.frame_rate) * vocabulary.num_quantizers
        voice = likeliest_voice(speaker.model, vocabulary, ids[: min(most, speaker.decoder.longest - 2)])
        lines.append(f"Of the voices that the model knows, this is most like {voice}." if voice else "")
    for number in range(count):
        result = speaker.continue_speech(prompt, seconds, voice=voice, sampling=sampling, seed=seed + number)
        halves = [
            SpokenSpan("Recording", 0.0, result.begins),
            SpokenSpan("Continuation", result.begins, result.seconds),
        ]
        new = f"{result.seconds - result.begins:.1f} s"
        lines.append(f"{number + 1}: new from {result.begins:.1f} s on ({new}).")
        lines += [cut for cut in result.cuts if CUT_MEANS["length"] not in cut]  # that length was asked for
        yield _track(str(number + 1), result.audio, colors(result.codes), halves, seam=result.begins) | {
            "progress": f"{number + 1} of {count} continuations"
        }
    yield {"status": "\n".join(filter(None, lines))}
