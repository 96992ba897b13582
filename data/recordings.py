"""Names of audio files, and which of them this project has made. Light: only the standard library."""

import os

from codec.foundation.errors import UserError

AUDIO_EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif"}
    | {".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc"}
)
# What we write: libsndfile's format and encoding.
WRITTEN_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
}
# What only ffmpeg reads.
FFMPEG_EXTENSIONS = frozenset(
    {".m4a", ".m4b", ".mp4", ".aac", ".webm", ".mka", ".mkv"}
    | {".wma", ".amr", ".3gp", ".ac3", ".ape", ".wv", ".tta", ".spx"}
)
SOFTWARE = "codec-slm"  # stands in the files that this project makes
_LOOKED_AT = 4096  # bytes at either end, in which formats name the software


def written_format(path: str | os.PathLike[str]) -> tuple[str, str]:
    """libsndfile's format and encoding of a file that is to be written. Raises UserError for a name of none."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in WRITTEN_FORMATS:
        raise UserError(
            f"{os.fspath(path)}: cannot be written as audio: end the name in {', '.join(WRITTEN_FORMATS)}"
        )
    return WRITTEN_FORMATS[suffix]


def refuse_recording(path: str | os.PathLike[str]) -> None:
    """Raises UserError when there is a recording at this path that this project has not made."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in AUDIO_EXTENSIONS | FFMPEG_EXTENSIONS or not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        head = file.read(_LOOKED_AT)
        file.seek(max(0, os.path.getsize(path) - _LOOKED_AT))
        ends = head + file.read()
    if head and not any(SOFTWARE.encode(coding) in ends for coding in ("utf-8", "utf-16-le", "utf-16-be")):
        raise UserError(f"{os.fspath(path)}: is a recording, which is not overwritten: give another --output")
