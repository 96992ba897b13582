"""Commands of the speech language model: train-slm, merge, map-codes, speak, continue, transcribe."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recipes.commands.common import load_slm_on
from slm.bounds import SpeechBounds
from slm.sampling import SamplingConfig
from slm.training_config import SLMTrainingConfig

if TYPE_CHECKING:
    from slm import SpeechLM
    from slm.speech_lm import Prompt, SpokenResult

_SAMPLING = SamplingConfig()
_BOUNDS = SpeechBounds()


def train_slm_command(config: SLMTrainingConfig) -> None:
    """Train a language model over text and speech tokens.

    Kill it and start it again: it goes on from its last checkpoint. Under `accelerate launch -m recipes train-slm`
    it trains on many devices.

    Args:
        config: the run; see recipes/slm/ for examples.
    """
    from slm import train_slm

    result = train_slm(config)
    if result.final is not None:
        print(f"trained {result.steps} steps: {result.final}")


def speak_command(
    text: str,
    output: str = "speech.wav",
    model: str = "slm-tiny",
    voice: str | None = None,
    voice_text: str | None = None,
    candidates: int = 1,
    sampling: SamplingConfig = _SAMPLING,
    bounds: SpeechBounds = _BOUNDS,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Text to speech.

    Args:
        text: what to say.
        output: the audio file to write; its ending says the format.
        model: name of a bundled model, a directory (a training run's too), or a hub id.
        voice: one of the model's voices, or a recording of somebody to speak like; by default the model's first.
        voice_text: what is said in that recording; it helps.
        candidates: say it so many times and keep the one in which the model itself hears the text best.
        sampling: how tokens are drawn.
        bounds: what ends speech that does not end by itself.
        seed: the same seed says it the same way.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    speaker = load_slm_on(model, device)
    tag, prompt = _voice(speaker, voice, voice_text)
    result = speaker.speak(
        text,
        voice=tag,
        prompt=prompt,
        candidates=candidates,
        sampling=sampling,
        bounds=bounds,
        seed=seed,
    )
    _write(result, output)


def continue_command(
    audio: Path,
    output: str = "continued.wav",
    text: str | None = None,
    transcript: str | None = None,
    seconds: float = 10.0,
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
        output: the audio file to write; its ending says the format.
        text: what to say next; by default whatever the model likes.
        transcript: what the recording says, needed for --text; by default the model writes it down itself.
        seconds: without --text, the longest that it may go on.
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


def merge_command(
    run: Path, output: Path, dtype: Literal["float32", "bfloat16", "float16"] = "float32"
) -> None:
    """A plain checkpoint of an adapter and the model that it was trained for.

    Args:
        run: a run that trained an adapter (tuning.mode lora or embeddings), or the adapter's directory.
        output: the directory to write.
        dtype: of the weights.
    """
    import torch

    from slm.merging import merge

    merge(run, output, getattr(torch, dtype))
    print(f"{output}: a plain transformers checkpoint")


def map_codes_command(old: Path, new: Path, output: Path = Path("codes.npy")) -> None:
    """Which codes of a former codec sound like each code of a new one, for --start_from.code_map.

    Both datasets hold the same recordings (by id), coded by the one and by the other.

    Args:
        old: token dataset of the codec that the speech language model speaks.
        new: token dataset of the codec that it is to learn.
        output: the .npy file to write.
    """
    import numpy as np

    from codec.runs import write_bytes
    from data import TokenDataset
    from slm.code_map import map_codes

    mapped = map_codes(TokenDataset.open(old), TokenDataset.open(new))
    buffer = io.BytesIO()
    np.save(buffer, mapped.shares)
    write_bytes(output, buffer.getvalue())
    print(
        f"{output}: {mapped.shares.shape[0]} codes, from {mapped.frames} frames of {mapped.recordings} recordings; "
        f"a new code tells {mapped.bits:.2f} bits about the old one"
    )


def _voice(speaker: "SpeechLM", voice: str | None, text: str | None) -> "tuple[str | None, Prompt | None]":
    """A voice as the model's tag or as a prompt, whichever it is."""
    from codec.runs import UserError

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
    from slm.speech_lm import Prompt

    waveform = read_audio(path, speaker.vocabulary.codec.sampling_rate)
    return Prompt(speaker.encode(waveform), text)


def _write(result: "SpokenResult", output: str) -> None:
    from data import write_audio

    write_audio(output, result.audio, result.sampling_rate)
    frames = result.codes.shape[1]
    print(
        f"{output}: {result.seconds:.2f} s, {frames} frames"
        + (f" of which {result.prompt_frames} were given" if result.prompt_frames else "")
        + f", made in {result.generation_seconds + result.decoding_seconds:.2f} s "
        f"({result.real_time_factor:.2f} x the time it lasts)"
    )
    for cut in result.cuts:
        print(f"{output}: {cut}")
