"""BigVGAN v2 by this project, beside NVIDIA's own implementation, the package `bigvgan`, where it is installed."""

import contextlib
import importlib.util
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recipes.benchmark.timing import Case, Timing, take_turns

if TYPE_CHECKING:
    from codec.vocoders.bigvgan import BigVGAN
    from codec.vocoders.configuration import BigVGANConfig

OURS, THEIRS = "codec-slm", "bigvgan"
_SEED = 0


@dataclass(frozen=True)
class BigVGANTiming:
    """Mel to `seconds` of waveform at the published size, batch 1, float32, the same weights."""

    seconds: float
    ours: Timing
    theirs: Timing
    difference: float  # the largest between the two waveforms

    @property
    def ratio(self) -> float:
        """How many times as fast as NVIDIA's: the median over rounds."""
        return self.ours.faster_round_by_round(self.theirs)


def is_installed() -> bool:
    """Whether there is something to compare with."""
    return importlib.util.find_spec(THEIRS) is not None


def time_bigvgan(seconds: float, rounds: int, device: str, counts_work: bool = False) -> BigVGANTiming:
    """Time both on one mel."""
    from codec.foundation import seed_globals, torch_generator
    from codec.vocoders.bigvgan import BigVGAN
    from codec.vocoders.configuration import BigVGANConfig

    config, where = BigVGANConfig(), torch.device(device)
    seed_globals(_SEED, "bigvgan")
    ours = BigVGAN(config, folded=True).eval().to(where)
    theirs = reference(ours, config).to(where)
    frames = max(1, round(seconds * config.mel.sampling_rate / config.mel.hop_length))
    noise = torch.randn(1, frames, config.mel.n_mels, generator=torch_generator(_SEED, "mel"))
    mel = (noise - 3.0).to(where)
    bands_first = mel.mT.contiguous()
    with torch.inference_mode():
        found = take_turns(
            [Case(OURS, lambda: ours(mel, None)), Case(THEIRS, lambda: theirs(bands_first))],
            rounds,
            where,
            "vocoding",
            counts_work=counts_work,
        )
        part = slice(0, min(frames, 50))
        difference = float((ours(mel[:, part], None) - theirs(bands_first[..., part])[:, 0]).abs().max())
    return BigVGANTiming(
        frames * config.mel.hop_length / config.mel.sampling_rate, found[OURS], found[THEIRS], difference
    )


def package_hyperparameters(config: "BigVGANConfig") -> Any:
    """A vocoder's configuration as the package bigvgan takes it."""
    from bigvgan.env import AttrDict

    return AttrDict(
        resblock="1",
        upsample_rates=list(config.upsample_rates),
        upsample_kernel_sizes=list(config.upsample_kernel_sizes),
        upsample_initial_channel=config.dim,
        resblock_kernel_sizes=list(config.block_kernel_sizes),
        resblock_dilation_sizes=[list(dilations) for dilations in config.block_dilations],
        use_tanh_at_final=False,
        use_bias_at_final=False,
        activation="snakebeta",
        snake_logscale=True,
        num_mels=config.mel.n_mels,
    )


def reference(vocoder: "BigVGAN", config: "BigVGANConfig") -> Any:
    """NVIDIA's generator with a vocoder's weights, as it is used: without weight norm."""
    import bigvgan

    from codec.importing.bigvgan import foreign_name

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)
        model = bigvgan.BigVGAN(package_hyperparameters(config)).eval()
        model.remove_weight_norm()  # says so
    weights: dict[str, Tensor] = {foreign_name(name): value for name, value in vocoder.state_dict().items()}
    report = model.load_state_dict(weights, strict=False)  # the filters are constants of its own
    unknown = [*report.unexpected_keys, *(key for key in report.missing_keys if not key.endswith("filter"))]
    if unknown:
        raise RuntimeError(f"the package bigvgan is not the version 2 that is known here: {unknown[0]}")
    return model
