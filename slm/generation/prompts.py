"""Recordings as prompts: brought to the codec's rate, and refused with the reason where nothing can follow them."""

import torch
from torch import Tensor

from codec import CodecInfo
from codec.foundation import UserError
from slm.generation.spoken import Prompt
from slm.vocabulary import Vocabulary

# Quieter than this in its loudest tenth of a second (full scale is 0 dB), it is noise at best.
_SILENCE_DB = -55.0
_SHORTEST_SECONDS = 0.2
_LARGEST_SHARE = 0.5  # of what the model reads, for the prompt


def prompt_from(waveform: Tensor, sampling_rate: int, codec: CodecInfo, name: str) -> Tensor:
    """A recording (samples,) at any rate as (samples,) at the codec's.

    Raises UserError, naming the recording, when there is nothing in it to follow.
    """
    from data.audio import Resampler

    if not len(waveform) or not bool(torch.isfinite(waveform).all()):
        raise UserError(f"{name} holds {'NaN or infinite samples' if len(waveform) else 'no samples'}")
    seconds = len(waveform) / sampling_rate
    if seconds < _SHORTEST_SECONDS:
        raise UserError(f"{name} is {seconds:.2f} s long: give some seconds of speech")
    window = max(1, sampling_rate // 10)
    power = waveform.float().square()[: max(1, len(waveform) // window) * window]
    loudest = power.reshape(-1, min(window, len(power))).mean(1).max()
    level = 10 * torch.log10(loudest.clamp_min(1e-12)).item()
    if level < _SILENCE_DB:
        raise UserError(
            f"{name} is silent ({level:.0f} dB at its loudest): give a recording in which somebody speaks"
        )
    resampler = Resampler(sampling_rate, codec.sampling_rate)
    return torch.cat([resampler.push(waveform.float()), resampler.finish()])


def check_prompt(prompt: Prompt, vocabulary: Vocabulary, longest: int) -> None:
    """Raise UserError for a prompt that takes more than its share of the `longest` tokens that a model reads."""
    text = 0 if prompt.text is None else len(vocabulary.encode_text(prompt.text))
    speech = len(vocabulary.codes_to_ids(prompt.codes))
    room = int(longest * _LARGEST_SHARE)
    if text + speech <= room:
        return
    rate = vocabulary.codec.frame_rate * vocabulary.num_quantizers
    raise UserError(
        f"the prompt is too long: {speech / rate:.1f} s, and this model follows up to "
        f"{max(0, room - text) / rate:.1f} s{' with this text' if text else ''}; give a part of it"
    )
