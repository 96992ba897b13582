"""Recordings from the page: read up to a limit; what the user sees names no file of ours."""

import os

from torch import Tensor

from codec.foundation import UserError
from data import AudioError
from recipes.apps.demo.limits import DemoLimits
from recipes.apps.serve.recordings import Upload, read_recording


def read_upload(path: str | None, sampling_rate: int, limits: DemoLimits) -> tuple[Tensor, str]:
    """(samples,) of an upload or a microphone's recording, and a remark if only its beginning was taken, else "".

    Raises UserError.
    """
    if path is None:
        raise UserError("upload or record something first")
    if os.path.getsize(path) > limits.megabytes * 2**20:
        raise UserError(f"the file is larger than {limits.megabytes:g} MB")
    with open(path, "rb") as file:
        upload = Upload(file.read())
    try:
        recording = read_recording(upload, sampling_rate, limits.seconds)
    except AudioError as error:
        raise UserError(f"{error}. WAV, FLAC, OGG and MP3 files can be read.") from None
    remark = "" if recording.is_whole else f"Of the recording, the first {limits.seconds:g} s were taken."
    return recording.waveform, remark
