"""Commands in which a speech language model speaks or listens: speak, continue, transcribe."""

import sys
from pathlib import Path
from typing import Any

from codec.foundation import Progress, UserError
from recipes.inputs import (
    STANDARD,
    check_audio_output,
    check_folder_output,
    check_recording,
    check_voice,
    read_text,
    read_texts,
)
from slm.generation.config import SamplingConfig, SpeechBounds, check_speed

_SAMPLING, _BOUNDS = SamplingConfig(), SpeechBounds()
_CANDIDATES = 4  # of which the model itself hears the text best


def speak_command(
    text: str | None = None,
    texts: Path | None = None,
    output: str | None = None,
    model: str = "slm-tiny",
    voice: str | None = None,
    voice_text: str | None = None,
    stream: bool = False,
    candidates: int | None = None,
    batch_size: int = 16,
    normalize: bool = True,
    language: str | None = None,
    speed: float = 1.0,
    verbose: bool = False,
    json: bool = False,
    sampling: SamplingConfig = _SAMPLING,
    bounds: SpeechBounds = _BOUNDS,
    seed: int = 0,
    device: str = "auto",
) -> int:
    """Text to speech: one text of any length, or many.

    Args:
        text: what to say; - reads it from standard input. A blank line is a pause, and so is [pause 0.5], in seconds.
        texts: a file of texts instead, one a line, or JSON objects: `{"text": ..., "id": ..., "voice": ...,
            "voice_text": ...}`, all but the text optional; - reads standard input. Lines that cannot be used are
            named and skipped.
        output: the audio file to write, speech.wav unless set, its ending says the format; - writes a WAV to standard
            output. With --texts a directory: an audio file for each line, named by its id, and speech.jsonl about them.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        voice: one of the model's voices, or a recording of somebody to speak like; by default the model's first.
        voice_text: what is said in that recording; it helps.
        stream: write audio while it is being made, and tell how soon and how fast it came.
        candidates: say it so many times and keep the one in which the model itself hears the text best; by default 4
            where the model can hear, and 1 with --stream.
        batch_size: passages of text that are spoken together.
        normalize: put numbers, dates, money, units, abbreviations and the like into spoken words first.
        language: by whose rules: en or de; the model's own unless set.
        speed: of the speech, 0.5 to 2: changed in the finished audio by a phase vocoder, so not with --stream.
        verbose: show the text in spoken words.
        json: print results as JSON.
        sampling: how tokens are drawn.
        bounds: what ends speech that does not end by itself, and how much is said in one go.
        seed: the same seed says it the same way.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    if (text is None) == (texts is None):
        raise UserError("give --text, or a file of --texts")
    if stream and (texts is not None or candidates not in (None, 1) or speed != 1.0):
        raise UserError("--stream says one --text as it comes: no --texts, no --candidates, no --speed")
    check_speed(speed, "--speed")
    if candidates is not None and candidates < 1:
        raise UserError("candidates must be 1 or more")
    check_voice(model, voice)
    rows: list[dict[str, Any]] = []
    skipped = 0
    if texts is not None:
        if output is None or output == STANDARD:
            raise UserError("--texts needs a directory as --output")
        check_folder_output(output)
        rows, skipped = read_texts(texts, model)
    target = output or "speech.wav"
    if text is not None:
        check_audio_output(target)
        text = read_text(text)

    from recipes.apps.result_printer import ResultPrinter
    from recipes.apps.speech_files import Voices, speak_rows, word_progress, write_speech, write_stream
    from recipes.loading import load_slm_on
    from slm import SpeechRequest

    results = ResultPrinter(json)
    speaker = load_slm_on(model, device, normalize, language)
    if verbose:
        for written in [text] if text is not None else [row["text"] for row in rows]:
            print(f"says: {speaker.spoken_form(written).text}", file=sys.stderr)
    tries = candidates or (_CANDIDATES if speaker.hears and not stream else 1)
    voices = Voices(speaker)
    if text is None:
        settings = (voice, voice_text, tries, batch_size, sampling, bounds, seed, speed, results)
        speak_rows(voices, rows, Path(target), *settings)
        return 1 if skipped else 0
    tag, prompt = voices.find(voice, voice_text)
    if stream:
        _ = speaker.codec  # loaded now: what is timed is the request
        streamed = speaker.stream(text, tag, prompt, sampling, bounds, seed=seed)
        write_stream(speaker, streamed, target, results)
        return 0
    with word_progress() as on_progress:
        requests = [SpeechRequest(text, tag, prompt)]
        spoken = speaker.speak_all(
            requests, tries, sampling, bounds, seed=seed, batch_size=batch_size, on_progress=on_progress
        )
        result = next(spoken)
    write_speech(result.at_speed(speed), target, results)
    return 0


def continue_command(
    audio: Path,
    output: str = "continued.wav",
    text: str | None = None,
    transcript: str | None = None,
    seconds: float = 10.0,
    least_seconds: float | None = None,
    only_new: bool = False,
    samples: int = 1,
    model: str = "slm-tiny",
    voice: str | None = None,
    candidates: int | None = None,
    normalize: bool = True,
    language: str | None = None,
    json: bool = False,
    sampling: SamplingConfig = _SAMPLING,
    bounds: SpeechBounds = _BOUNDS,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Go on speaking where a recording ends; what is written has both.

    Args:
        audio: the recording; - reads it from standard input.
        output: the audio file to write; its ending says the format. - writes a WAV to standard output.
        text: what to say next; by default whatever the model likes.
        transcript: what the recording says, needed for --text; by default the model writes it down itself.
        seconds: without --text, the longest that it may go on.
        least_seconds: without --text, the shortest; 2 unless set.
        only_new: write the continuation alone.
        samples: go on so many times, with seeds from --seed on, to continued-1.wav, continued-2.wav, ...
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        voice: the model's voice that speaks in the recording, if it is one.
        candidates: with --text, say it so many times and keep the one in which the model hears the text best; by
            default 4 where the model can hear.
        normalize: put numbers, dates, money and the like in --text into spoken words first.
        language: by whose rules: en or de; the model's own unless set.
        json: print results as JSON.
        sampling: how tokens are drawn.
        bounds: what ends speech that does not end by itself.
        seed: the same seed goes on the same way.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    if samples < 1 or (samples > 1 and output == STANDARD):
        raise UserError("--samples is 1 or more, and only one fits into standard output")
    check_recording(audio)
    check_audio_output(output)

    from recipes.apps.result_printer import ResultPrinter
    from recipes.apps.speech_files import read_prompt, write_speech
    from recipes.loading import load_slm_on

    results = ResultPrinter(json)
    speaker = load_slm_on(model, device, normalize, language)
    recording = read_prompt(speaker, audio, transcript)
    for number in range(samples):
        result = speaker.continue_speech(
            recording,
            seconds=seconds,
            text=text,
            voice=voice,
            candidates=candidates or (_CANDIDATES if text is not None and speaker.hears else 1),
            sampling=sampling,
            bounds=bounds,
            seed=seed + number,
            least_seconds=least_seconds,
        )
        path = Path(output)
        target = str(path.with_stem(f"{path.stem}-{number + 1}")) if samples > 1 else output
        write_speech(result, target, results, only_new)


def transcribe_command(
    audio: list[Path], model: str = "slm-tiny", json: bool = False, device: str = "auto"
) -> int:
    """Write down what recordings say, one line each; long ones are heard in windows.

    A recording that cannot be read is named, the others are still written down, and the exit status is 1.

    Args:
        audio: the recordings, or directories of them; - reads one from standard input.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        json: print results as JSON.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from data import read_audio
    from recipes.apps.result_printer import ResultPrinter
    from recipes.apps.uploads import audio_source
    from recipes.loading import list_audio, load_slm_on

    paths = list_audio(audio)
    results = ResultPrinter(json)
    listener = load_slm_on(model, device)
    listener.check_hears()
    rate, failed = listener.vocabulary.codec.sampling_rate, 0
    with Progress(len(paths), unit="recordings", label="transcribing") as progress:
        for path in paths:
            try:
                source = audio_source(path)
                result = listener.transcribe_recording(read_audio(source, rate), rate, str(source))
            except UserError as error:
                print(f"{error}; skipped", file=sys.stderr)
                failed += 1
                continue
            if json:
                results.tell(path, [], text=result.text, ended=result.ended, cuts=result.cuts)
            else:
                print(f"{path}: {result.text}" if len(paths) > 1 else result.text, flush=True)
                for cut in result.cuts:
                    print(f"{path}: {cut}", file=sys.stderr)
            progress.update(1)
    return 1 if failed else 0
