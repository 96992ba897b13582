"""What several commands do first: choose a device, load what runs on it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codec import Codec
    from slm import SpeechLM


def resolve_device(name: str) -> str:
    """A torch device for `--device`; "auto" is the accelerator that torch finds, else the CPU.

    Each process of a launch gets a GPU of its own. Raises UserError for a device that is not there.
    """
    import torch

    from codec.foundation import UserError, local_rank

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        name = "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: choose cpu, cuda, cuda:1, ... or auto") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        number = device.index if device.index is not None else local_rank() % max(1, count)
        if number >= count:
            raise UserError(f"no device {name}: this machine has {count} CUDA devices; choose --device cpu")
        return f"cuda:{number}"
    return name


def load_codec_on(name: str, device: str, num_quantizers: int | None = None) -> "Codec":
    """The codec of `--codec` on the device of `--device`, of whose quantizers the first few or all are used.

    Raises UserError when either is not there.
    """
    from codec import load_codec

    if num_quantizers is None:
        return load_codec(name, device=resolve_device(device))
    return load_codec(name, device=resolve_device(device), num_quantizers=num_quantizers)


def load_slm_on(name: str, device: str) -> "SpeechLM":
    """The speech language model of `--model` on the device of `--device`. Raises UserError likewise."""
    from slm import SpeechLM

    return SpeechLM.from_pretrained(name, device=resolve_device(device))
