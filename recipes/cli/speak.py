"""Commands in which a speech language model speaks or listens: speak, continue, transcribe."""

from pathlib import Path

from codec.foundation import UserError
from slm.generation.config import SamplingConfig, SpeechBounds

_SAMPLING, _BOUNDS = SamplingConfig(), SpeechBounds()


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
    from recipes.apps.speech_files import (
        Voices,
        read_texts,
        speak_rows,
        word_progress,
        write_speech,
        write_stream,
    )
    from recipes.loading import load_slm_on
    from slm import SpeechRequest

    if (text is None) == (texts is None):
        raise UserError("give --text, or a file of --texts")
    if stream and (texts is not None or candidates != 1):
        raise UserError("--stream says one --text as it comes: no --texts, no --candidates to choose from")
    if texts is not None:
        if output is None or output == "-":
            raise UserError("--texts needs a directory as --output")
        rows = read_texts(texts)
        voices = Voices(load_slm_on(model, device))
        speak_rows(
            voices, rows, Path(output), voice, voice_text, candidates, batch_size, sampling, bounds, seed
        )
        return
    assert text is not None
    target = output or "speech.wav"
    speaker = load_slm_on(model, device)
    tag, prompt = Voices(speaker).find(voice, voice_text)
    if stream:
        _ = speaker.codec  # loaded now: what is timed is the request
        write_stream(speaker, speaker.stream(text, tag, prompt, sampling, bounds, seed=seed), target)
        return
    with word_progress(text) as on_progress:
        requests = [SpeechRequest(text, tag, prompt)]
        results = speaker.speak_all(
            requests, candidates, sampling, bounds, seed=seed, batch_size=batch_size, on_progress=on_progress
        )
        result = next(results)
    write_speech(result, target)


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
    from recipes.apps.speech_files import read_prompt, write_speech
    from recipes.loading import load_slm_on

    speaker = load_slm_on(model, device)
    result = speaker.continue_speech(
        read_prompt(speaker, audio, transcript),
        seconds=seconds,
        text=text,
        voice=voice,
        candidates=candidates,
        sampling=sampling,
        bounds=bounds,
        seed=seed,
        least_seconds=least_seconds,
    )
    write_speech(result, output)


def transcribe_command(audio: list[Path], model: str = "slm-tiny", device: str = "auto") -> None:
    """Write down what recordings say, one line each.

    Args:
        audio: the recordings.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from recipes.apps.speech_files import read_prompt
    from recipes.loading import load_slm_on

    listener = load_slm_on(model, device)
    for path in audio:
        result = listener.transcribe(read_prompt(listener, path).codes)
        print(f"{path}: {result.text}" if len(audio) > 1 else result.text)
        for cut in result.cuts:
            print(f"{path}: {cut}")
