"""Commands in which a speech language model speaks or listens: speak, continue, transcribe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.cli.common import load_slm_on
from slm.generation.bounds import SpeechBounds
from slm.generation.sampling import SamplingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from slm import Prompt, SpeakingProgress, SpeechLM, SpeechRequest, SpeechStream, SpokenResult
    from slm.generation.speech_lm import Watcher

_SAMPLING = SamplingConfig()
_BOUNDS = SpeechBounds()
_STDOUT = "-"


def speak_command(
    text: str | None = None,
    texts: Path | None = None,
    output: str | None = None,
    model: str = "slm-tiny",
    voice: str | None = None,
    voice_text: str | None = None,
    stream: bool = False,
    candidates: int = 1,
    batch_size: int = 16,
    sampling: SamplingConfig = _SAMPLING,
    bounds: SpeechBounds = _BOUNDS,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Text to speech: one text of any length, or many.

    Args:
        text: what to say.
        texts: a JSONL file of texts instead: `{"text": ..., "id": ..., "voice": ..., "voice_text": ...}` a line, all
            but the text optional.
        output: the audio file to write, speech.wav unless set, its ending says the format; - writes a WAV to standard
            output. With --texts a directory: an audio file for each line, named by its id, and speech.jsonl about them.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        voice: one of the model's voices, or a recording of somebody to speak like; by default the model's first.
        voice_text: what is said in that recording; it helps.
        stream: write audio while it is being made, and tell how soon and how fast it came.
        candidates: say it so many times and keep the one in which the model itself hears the text best.
        batch_size: passages of text that are spoken together.
        sampling: how tokens are drawn.
        bounds: what ends speech that does not end by itself, and how much is said in one go.
        seed: the same seed says it the same way.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec.foundation import UserError

    if (text is None) == (texts is None):
        raise UserError("give --text, or a file of --texts")
    if stream and (texts is not None or candidates != 1):
        raise UserError("--stream says one --text as it comes: no --texts, no --candidates to choose from")
    if texts is not None:
        if output is None or output == _STDOUT:
            raise UserError("--texts needs a directory as --output")
        rows = _read_texts(texts)
        speaker = load_slm_on(model, device)
        _speak_rows(
            speaker, rows, Path(output), voice, voice_text, candidates, batch_size, sampling, bounds, seed
        )
        return
    assert text is not None
    target = output or "speech.wav"
    speaker = load_slm_on(model, device)
    tag, prompt = _voice(speaker, voice, voice_text)
    if stream:
        _ = speaker.codec  # loaded now: what is timed is the request
        streamed = speaker.stream(text, tag, prompt, sampling, bounds, seed=seed)
        _write_stream(speaker, streamed, target)
        return
    with _progress_in_words(text) as on_progress:
        requests = [_request(text, tag, prompt)]
        results = speaker.speak_all(
            requests, candidates, sampling, bounds, seed=seed, batch_size=batch_size, on_progress=on_progress
        )
        result = next(results)
    _write(result, target)


def continue_command(
    audio: Path,
    output: str = "continued.wav",
    text: str | None = None,
    transcript: str | None = None,
    seconds: float = 10.0,
    least_seconds: float = 0.0,
    model: str = "slm-tiny",
    voice: str | None = None,
    candidates: int = 1,
    sampling: SamplingConfig = _SAMPLING,
    bounds: SpeechBounds = _BOUNDS,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Go on speaking where a recording ends; what is written has both.

    Args:
        audio: the recording.
        output: the audio file to write; its ending says the format. - writes a WAV to standard output.
        text: what to say next; by default whatever the model likes.
        transcript: what the recording says, needed for --text; by default the model writes it down itself.
        seconds: without --text, the longest that it may go on.
        least_seconds: without --text, the shortest.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        voice: the model's voice that speaks in the recording, if it is one.
        candidates: with --text, say it so many times and keep the one in which the model hears the text best.
        sampling: how tokens are drawn.
        bounds: what ends speech that does not end by itself.
        seed: the same seed goes on the same way.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    speaker = load_slm_on(model, device)
    result = speaker.continue_speech(
        _recording(speaker, audio, transcript),
        seconds=seconds,
        text=text,
        voice=voice,
        candidates=candidates,
        sampling=sampling,
        bounds=bounds,
        seed=seed,
        least_seconds=least_seconds,
    )
    _write(result, output)


def transcribe_command(audio: list[Path], model: str = "slm-tiny", device: str = "auto") -> None:
    """Write down what recordings say, one line each.

    Args:
        audio: the recordings.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    listener = load_slm_on(model, device)
    for path in audio:
        result = listener.transcribe(_recording(listener, path).codes)
        print(f"{path}: {result.text}" if len(audio) > 1 else result.text)
        for cut in result.cuts:
            print(f"{path}: {cut}")


# ---- many texts


def _read_texts(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, each with a text and an id that can be a file's name."""
    import json
    import re

    from codec.foundation import UserError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    rows: list[dict[str, Any]] = []
    width = len(str(len(lines)))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f'{path}, line {number}: expected an object with a "text"')
        if unknown := row.keys() - {"id", "text", "voice", "voice_text"}:
            raise UserError(f"{path}, line {number}: unknown field {sorted(unknown)[0]!r}")
        row["id"] = str(row.get("id", f"{number:0{width}}"))
        if not re.fullmatch(r"\w[\w.-]*", row["id"]):
            raise UserError(
                f"{path}, line {number}: the id {row['id']!r} names a file: letters, digits, '-', '_' and '.' only"
            )
        rows.append(row)
    ids = [row["id"] for row in rows]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise UserError(f"{path}: the id {twice!r} comes twice")
    if not rows:
        raise UserError(f"{path}: holds no texts")
    return rows


def _speak_rows(
    speaker: "SpeechLM",
    rows: list[dict[str, Any]],
    output: Path,
    voice: str | None,
    voice_text: str | None,
    candidates: int,
    batch_size: int,
    sampling: SamplingConfig,
    bounds: SpeechBounds,
    seed: int,
) -> None:
    import json

    from codec.foundation import write_text
    from data import write_audio

    requests = []
    prompts: dict[tuple[str | None, str | None], tuple[str | None, Prompt | None]] = {}
    for row in rows:
        asked = (row.get("voice", voice), row.get("voice_text", voice_text if "voice" not in row else None))
        if asked not in prompts:
            prompts[asked] = _voice(speaker, *asked)
        requests.append(_request(row["text"], *prompts[asked]))
    lines = []
    with _progress_in_words(" ".join(row["text"] for row in rows)) as on_progress:
        results = speaker.speak_all(
            requests, candidates, sampling, bounds, None, seed, batch_size, on_progress
        )
        output.mkdir(parents=True, exist_ok=True)
        for row, result in zip(rows, results, strict=True):
            name = f"{row['id']}.wav"
            write_audio(output / name, result.audio, result.sampling_rate)
            spans = [{"text": span.text, "start": span.start, "end": span.end} for span in result.spans]
            lines.append(
                {**row, "audio": name, "seconds": result.seconds, "ended": result.ended, "cuts": result.cuts}
                | ({"spans": spans} if spans else {})
            )
    write_text(
        output / "speech.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    )
    seconds = sum(line["seconds"] for line in lines)
    cut = sum(bool(line["cuts"]) for line in lines)
    print(
        f"{output}: {len(lines)} texts, {seconds:.1f} s of speech"
        + (f"; of {cut} something was cut, see speech.jsonl" if cut else "")
    )


@contextmanager
def _progress_in_words(text: str) -> "Iterator[Watcher]":
    from codec.foundation import Progress

    bars: list[Progress] = []  # none before the first word: there may be an error to tell instead

    def tell(progress: "SpeakingProgress") -> None:
        if not bars:
            bars.append(Progress(len(text.split()), unit="words", label="speaking"))
        bars[0].update(progress.words - bars[0].done, f"{progress.seconds:.1f} s of speech")

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()


# ---- voices and recordings


def _request(text: str, voice: str | None, prompt: "Prompt | None") -> "SpeechRequest":
    from slm import SpeechRequest

    return SpeechRequest(text, voice, prompt)


def _voice(speaker: "SpeechLM", voice: str | None, text: str | None) -> "tuple[str | None, Prompt | None]":
    """A voice as the model's tag or as a prompt, whichever it is."""
    from codec.foundation import UserError

    if voice is None or voice in speaker.vocabulary.voices:
        if text is not None:
            raise UserError("--voice_text is what a recording says: give the recording as --voice")
        return voice, None
    if not Path(voice).exists():
        known = ", ".join(speaker.vocabulary.voices) or "none"
        raise UserError(f"{voice} is neither a recording nor one of the model's voices ({known})")
    return None, _recording(speaker, Path(voice), text)


def _recording(speaker: "SpeechLM", path: Path, text: str | None = None) -> "Prompt":
    from data import read_audio

    rate = speaker.vocabulary.codec.sampling_rate
    return speaker.prompt(read_audio(path, rate), rate, text, name=str(path))


# ---- what is written


def _write(result: "SpokenResult", output: str) -> None:
    from data import write_audio
    from recipes.apps.wav_stream import wav_bytes

    if output == _STDOUT:
        sys.stdout.buffer.write(wav_bytes(result.audio, result.sampling_rate))
    else:
        write_audio(output, result.audio, result.sampling_rate)
    frames = result.codes.shape[1]
    _say(
        output,
        f"{result.seconds:.2f} s, {frames} frames"
        + (f" of which {result.prompt_frames} were given" if result.prompt_frames else "")
        + f", made in {result.generation_seconds + result.decoding_seconds:.2f} s "
        f"({result.real_time_factor:.2f} x the time it lasts)",
        *result.cuts,
    )


def _write_stream(speaker: "SpeechLM", streamed: "SpeechStream", output: str) -> None:
    from codec.streaming_codec import ChunkedDecoder, stream_decoder
    from data import write_audio
    from recipes.apps.wav_stream import pcm16, wav_header

    shows = sys.stderr.isatty()

    def audio() -> "Iterator[Tensor]":
        for chunk in streamed:
            if shows:
                words = "".join(span.text for span in chunk.spans)
                print(words, end="", file=sys.stderr, flush=True)
            yield chunk.audio
        if shows:
            print(file=sys.stderr)

    if output == _STDOUT:
        sys.stdout.buffer.write(wav_header(streamed.sampling_rate))
        for block in audio():
            sys.stdout.buffer.write(pcm16(block))
            sys.stdout.buffer.flush()
    else:
        write_audio(output, audio(), streamed.sampling_rate)
    lead = streamed.smallest_lead
    lines = [
        f"{streamed.seconds:.2f} s, first audio after {streamed.first_audio_seconds:.2f} s, "
        f"made in {streamed.working_seconds:.2f} s (real-time factor {streamed.real_time_factor:.2f})",
        f"never less than {lead:.2f} s ahead of the listener"
        if lead > 0
        else f"{-lead:.2f} s late at the worst",
    ]
    decoder = stream_decoder(speaker.codec)
    if isinstance(decoder, ChunkedDecoder):
        error = decoder.error(streamed.codes[None])
        lines.append(
            f"this codec cannot stream: decoded in chunks, {decoder.latency_samples / streamed.sampling_rate:.2f} s "
            f"behind the tokens; the noise of the seams is {error.signal_to_noise:.1f} dB below the speech"
        )
    _say(output, *lines, *streamed.cuts)


def _say(output: str, *lines: str) -> None:
    """A line each, on standard error where the audio goes to standard output."""
    for line in lines:
        if output == _STDOUT:
            print(line, file=sys.stderr)
        else:
            print(f"{output}: {line}")
