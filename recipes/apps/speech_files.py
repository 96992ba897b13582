"""What the commands read and write around a speech language model: texts, voices and recordings; audio files."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.foundation import Progress, UserError, write_text
from codec.streaming_codec import ChunkedDecoder, stream_decoder
from data import read_audio, write_audio
from data.recordings import refuse_recording
from recipes.apps.result_printer import ResultPrinter
from recipes.apps.uploads import audio_source
from recipes.apps.wav_stream import pcm16, wav_bytes, wav_header
from recipes.inputs import STANDARD
from slm import (
    Prompt,
    SamplingConfig,
    SpeakingProgress,
    SpeechBounds,
    SpeechLM,
    SpeechRequest,
    SpeechStream,
    SpokenResult,
)
from slm.generation.results import Watcher


class Voices:
    """The voices of `--voice`: tags of the model, and recordings, each read once."""

    def __init__(self, speaker: SpeechLM):
        self.speaker = speaker
        self._prompts: dict[tuple[str, str | None], Prompt] = {}

    def find(self, voice: str | None, text: str | None) -> tuple[str | None, Prompt | None]:
        """A voice as the model's tag or as a prompt, whichever it is; `text` is what a recording says."""
        known = self.speaker.vocabulary.voices
        if voice is None or voice in known:
            if text is not None:
                raise UserError("--voice_text is what a recording says: give the recording as --voice")
            return voice, None
        if not Path(voice).exists():
            names = ", ".join(known) or "none"
            raise UserError(f"{voice} is neither a recording nor one of the model's voices ({names})")
        if (voice, text) not in self._prompts:
            self._prompts[voice, text] = read_prompt(self.speaker, Path(voice), text)
        return None, self._prompts[voice, text]


def read_prompt(speaker: SpeechLM, path: Path, text: str | None = None) -> Prompt:
    """A recording, or standard input for `-`, as a prompt; `text` is what it says."""
    rate, source = speaker.vocabulary.codec.sampling_rate, audio_source(path)
    return speaker.prompt(read_audio(source, rate), rate, text, name=str(source))


def speak_rows(
    voices: Voices,
    rows: list[dict[str, Any]],
    output: Path,
    voice: str | None,
    voice_text: str | None,
    candidates: int,
    batch_size: int,
    sampling: SamplingConfig,
    bounds: SpeechBounds,
    seed: int,
    speed: float,
    results: ResultPrinter,
) -> None:
    """Say the texts of `read_texts`: an audio file each in the directory `output`, and speech.jsonl about them."""
    requests = []
    for row in rows:
        said = row.get("voice_text", voice_text if "voice" not in row else None)
        requests.append(SpeechRequest(row["text"], *voices.find(row.get("voice", voice), said)))
    lines = []
    with word_progress() as on_progress:
        spoken = voices.speaker.speak_all(
            requests, candidates, sampling, bounds, None, seed, batch_size, on_progress
        )
        output.mkdir(parents=True, exist_ok=True)
        for row, result in zip(rows, (result.at_speed(speed) for result in spoken), strict=True):
            name = f"{row['id']}.wav"
            refuse_recording(output / name)
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
    said = f"{len(lines)} texts, {seconds:.1f} s of speech"
    said += f"; of {cut} something was cut, see speech.jsonl" if cut else ""
    results.tell(output, [said], texts=len(lines), seconds=seconds, cut=cut)


@contextmanager
def word_progress() -> Iterator[Watcher]:
    """Shows a progress bar in words; gives what to call with the progress."""
    bars: list[Progress] = []  # none before the first word: there may be an error to tell instead

    def tell(progress: SpeakingProgress) -> None:
        if not bars:
            bars.append(Progress(progress.total_words, unit="words", label="speaking"))
        bars[0].update(progress.words - bars[0].done, f"{progress.seconds:.1f} s of speech")

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()


def write_speech(result: SpokenResult, output: str, results: ResultPrinter, only_new: bool = False) -> None:
    """Write an audio file, or a WAV to standard output for "-", and say how long it is and how fast it was made.

    only_new: without the recording that was continued.
    """
    audio = result.audio[round(result.begins * result.sampling_rate) :] if only_new else result.audio
    if output == STANDARD:
        sys.stdout.buffer.write(wav_bytes(audio, result.sampling_rate))
    else:
        write_audio(output, audio, result.sampling_rate)
    seconds, new = len(audio) / result.sampling_rate, result.seconds - result.begins
    lines = [f"{seconds:.2f} s"]
    if result.prompt_frames:
        begins = 0.0 if only_new else result.begins
        lines[0] += f", new from {begins:.2f} s on ({new:.2f} s)" if new else ", nothing was added"
    if new:
        taken = result.generation_seconds + result.decoding_seconds
        lines[0] += f", made in {taken:.2f} s ({result.real_time_factor:.2f} x the time it lasts)"
    facts = {"seconds": seconds, "begins": None if only_new else result.begins, "new_seconds": new}
    results.tell(output, [*lines, *result.cuts], **facts, ended=result.ended, cuts=result.cuts)


def write_stream(speaker: SpeechLM, streamed: SpeechStream, output: str, results: ResultPrinter) -> None:
    """Write speech while it is made, and say how soon and how fast it came."""
    shows = sys.stderr.isatty()

    def audio() -> Iterator[Tensor]:
        for chunk in streamed:
            if shows:
                words = "".join(span.text for span in chunk.spans)
                print(words, end="", file=sys.stderr, flush=True)
            yield chunk.audio
        if shows:
            print(file=sys.stderr)

    if output == STANDARD:
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
    facts = {"seconds": streamed.seconds, "first_audio_seconds": streamed.first_audio_seconds}
    results.tell(output, [*lines, *streamed.cuts], **facts, ended=streamed.ended, cuts=streamed.cuts)
