"""Codecs to time, in turn: this project's presets and bundled codecs, and `transformers`' at their published sizes.

Also one row each of hybrid-codec, beside itself with its teacher inside, and of BigVGAN v2, beside the package bigvgan.
Weights are random where none are bundled: they cost what trained ones cost.
"""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn
from transformers import (
    AutoModel,
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from codec import bundled_codecs, export_codec, load_codec, preset_config
from codec.foundation import seed_globals, torch_generator
from codec.hybrid_codec.modeling import HybridCodecModel
from codec.importing.vocoders import nvidia_name
from codec.losses.semantic import TEACHER_RATE
from codec.nn.mel import stacked_filterbank
from codec.presets import PRESETS
from codec.vocoders.bigvgan import BigVGAN, BigVGANConfig
from recipes.benchmark.timing import Case, Timing, take_turns

MIMI, ENCODEC, DAC = "MimiModel", "EncodecModel", "DacModel"
_SEED = 0
_TEACHER_LAYERS = 16


@dataclass(frozen=True)
class Contestant:
    """A codec on its device."""

    name: str
    sampling_rate: int
    about: str  # for the table
    encode: Callable[[Tensor], Any]  # (1, 1, samples) -> what `decode` takes
    decode: Callable[[Any], Tensor]


def contestant_names() -> list[str]:
    """All that there are: the reference codecs, then ours."""
    return [MIMI, ENCODEC, DAC, *dict.fromkeys([*sorted(PRESETS), *bundled_codecs()])]


def build(name: str, device: str) -> Contestant:
    """The contestant `name`, of `contestant_names`."""
    seed_globals(_SEED, name)
    with torch.no_grad():
        if name in _REFERENCES:
            return _REFERENCES[name](device)
        return _ours(name, device)


def speech_like(sampling_rate: int, seconds: float) -> Tensor:
    """(1, 1, samples) of harmonics in syllables over some noise: what is timed on."""
    time = torch.arange(round(seconds * sampling_rate)) / sampling_rate
    pitch = 120.0 + 20.0 * torch.sin(2.0 * torch.pi * 0.3 * time)
    phase = 2.0 * torch.pi * torch.cumsum(pitch, dim=0) / sampling_rate
    voice = torch.stack([torch.sin(k * phase) / k for k in range(1, 20)]).sum(dim=0)
    syllables = (0.5 + 0.5 * torch.sin(2.0 * torch.pi * 3.0 * time)).square()
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(_SEED))
    return (0.2 * syllables * voice + 0.003 * noise)[None, None]


def preset_or_bundled(name: str, device: str) -> Any:
    """A bundled codec, or a preset with random weights, on its device; or what else `load_codec` finds."""
    if name in PRESETS and name not in bundled_codecs():
        model: Any = export_codec(AutoModel.from_config(preset_config(name)).eval())
        return model.to(device)
    return load_codec(name, device=device)


def _ours(name: str, device: str) -> Contestant:
    model = preset_or_bundled(name, device)
    about = "bundled" if name in bundled_codecs() else "random weights"
    return Contestant(
        name,
        model.config.sampling_rate,
        f"{about}; {model.config.frame_rate:g} Hz × {model.config.num_quantizers}",
        lambda audio: model.encode(audio).audio_codes,
        lambda codes: model.decode(codes).audio_values,
    )


def _mimi(device: str) -> Contestant:
    model = MimiModel(MimiConfig()).eval().to(device)
    return Contestant(
        MIMI,
        model.config.sampling_rate,
        f"random weights; {model.config.frame_rate:g} Hz × {model.config.num_quantizers}",
        lambda audio: model.encode(audio).audio_codes,
        lambda codes: model.decode(codes).audio_values,
    )


def _encodec(device: str) -> Contestant:
    model = EncodecModel(EncodecConfig()).eval().to(device)
    return Contestant(
        ENCODEC,
        model.config.sampling_rate,
        f"random weights; {model.config.frame_rate:g} Hz × 8",
        lambda audio: model.encode(audio, bandwidth=6.0),
        lambda encoded: model.decode(encoded.audio_codes, encoded.audio_scales).audio_values,
    )


def _dac(device: str) -> Contestant:
    # descript/dac_24khz
    config = DacConfig(downsampling_ratios=[2, 4, 5, 8], n_codebooks=32, sampling_rate=24_000)
    model = DacModel(config).eval().to(device)
    return Contestant(
        DAC,
        config.sampling_rate,
        f"random weights; {config.frame_rate:g} Hz × {config.n_codebooks}",
        lambda audio: model.encode(audio).audio_codes,
        lambda codes: model.decode(audio_codes=codes).audio_values,
    )


_REFERENCES: dict[str, Callable[[str], Contestant]] = {MIMI: _mimi, ENCODEC: _encodec, DAC: _dac}


@dataclass(frozen=True)
class CodecTiming:
    """One codec on `audio_seconds` of audio, batch 1, float32."""

    about: str
    audio_seconds: float
    encode: Timing
    decode: Timing

    @property
    def together_real_time(self) -> float:
        """Encoding and decoding as a multiple of real time, by the median rounds."""
        return self.audio_seconds / (self.encode.median + self.decode.median)


def time_codecs(names: Sequence[str], seconds: float, rounds: int, device: str) -> dict[str, CodecTiming]:
    """Time the codecs of those names; by name, in their order."""
    contestants = [build(name, device) for name in names]
    where = torch.device(device)
    with torch.inference_mode():
        encoding, decoding = [], []
        for contestant in contestants:
            audio = speech_like(contestant.sampling_rate, seconds).to(where)
            encoding.append(Case(contestant.name, partial(contestant.encode, audio)))
            decoding.append(Case(contestant.name, partial(contestant.decode, contestant.encode(audio))))
        encoded = take_turns(encoding, rounds, where, "encoding")
        decoded = take_turns(decoding, rounds, where, "decoding")
    return {c.name: CodecTiming(c.about, seconds, encoded[c.name], decoded[c.name]) for c in contestants}


# ---- one row each

PAPER_RATIO = 3.0
PAPER_NOTE = "the paper: 3 × beside DualCodec, real-time factor 0.014, on an A6000"


@dataclass(frozen=True)
class HybridTiming:
    """`hybrid-codec` on `audio_seconds` of audio, batch 1, float32, beside itself with its teacher inside.

    The paper (arXiv 2606.06743) reports three times the speed of DualCodec, in which w2v-BERT 2.0 is a part of the
    encoder, and a real-time factor of 0.014, on an A6000.
    """

    audio_seconds: float
    encode: Timing  # waveform to codes
    encode_with_teacher: Timing  # the same with w2v-BERT 2.0 in the semantic encoder's place

    @property
    def over_teacher(self) -> float:
        """How many times as fast as with the teacher inside: the median over rounds."""
        return self.encode.faster_round_by_round(self.encode_with_teacher)

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing a second of audio, to encode: the median round."""
        return self.encode.median / self.audio_seconds


class TaughtEncoder(nn.Module):
    """A HybridCodec's encoder whose semantic stream hears w2v-BERT 2.0, as in DualCodec (arXiv 2505.13000).

    The teacher's features, two of 50 a second averaged for a frame, go straight to the semantic quantizer: where the
    teacher is, the ConvNeXt blocks before it are not. Everything else is the codec's own.
    """

    def __init__(self, codec: HybridCodecModel, teacher: Wav2Vec2BertModel) -> None:
        super().__init__()
        self.codec, self.teacher = codec, teacher

    def forward(self, audio: Tensor) -> Tensor:
        """(1, 1, samples in whole hops) at the codec's rate -> codes (1, num_quantizers, frames)."""
        latent = self.codec.encoder(audio[:, 0])  # (1, frames, dim)
        quantizer = self.codec.quantizer
        semantic = quantizer.semantic
        heard = self.features(audio[:, 0], latent.shape[1])
        codes = semantic.quantizer.encode(semantic.proj_in(heard))
        left = quantizer.acoustic_input(latent, semantic.decode(codes))
        acoustic = quantizer.acoustic.encode(left, self.codec.config.num_quantizers - 1)
        return torch.cat([codes[:, None], acoustic], dim=1)

    def features(self, waveform: Tensor, frames: int) -> Tensor:
        """(1, samples) -> (1, frames, dim) of the teacher."""
        heard = torchaudio.functional.resample(waveform, self.codec.config.sampling_rate, TEACHER_RATE)
        lengths = torch.full((1,), heard.shape[1], device=heard.device)
        bands, mask = stacked_filterbank(heard, lengths)
        hidden = self.teacher(input_features=bands, attention_mask=mask).last_hidden_state
        return nn.functional.adaptive_avg_pool1d(hidden.mT, frames).mT


def time_hybrid(seconds: float, rounds: int, device: str) -> HybridTiming:
    """Time the preset `hybrid-codec` with random weights, which cost what trained ones cost.

    The teacher is w2v-BERT 2.0 at its published size up to hidden state 16: the first 16 of 24 layers.
    """
    seed_globals(_SEED, "hybrid")
    where = torch.device(device)
    with torch.no_grad():
        codec: Any = export_codec(AutoModel.from_config(preset_config("hybrid-codec")).eval())
        codec.to(where)
        teacher = Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=_TEACHER_LAYERS)).eval()
        taught = TaughtEncoder(codec, teacher).to(where)
    audio = speech_like(codec.config.sampling_rate, seconds).to(where)
    audio = nn.functional.pad(audio, (0, -audio.shape[-1] % codec.config.hop_length))
    cases = [Case("ours", lambda: codec.encode(audio)), Case("taught", lambda: taught(audio))]
    with torch.inference_mode():
        found = take_turns(cases, rounds, where, "encoding beside w2v-BERT 2.0")
    return HybridTiming(seconds, found["ours"], found["taught"])


@dataclass(frozen=True)
class BigVGANTiming:
    """Mel to `audio_seconds` of waveform at the published size, batch 1, float32, the same weights."""

    audio_seconds: float
    ours: Timing
    theirs: Timing
    difference: float  # the largest between the two waveforms

    @property
    def ratio(self) -> float:
        """How many times as fast as NVIDIA's: the median over rounds."""
        return self.ours.faster_round_by_round(self.theirs)


def bigvgan_is_installed() -> bool:
    """Whether there is something to compare with."""
    return importlib.util.find_spec("bigvgan") is not None


def time_bigvgan(seconds: float, rounds: int, device: str) -> BigVGANTiming:
    """Time both on one mel."""
    config, where = BigVGANConfig(), torch.device(device)
    seed_globals(_SEED, "bigvgan")
    ours = BigVGAN(config, folded=True).eval().to(where)
    theirs = bigvgan_of_the_package(ours, config).to(where)
    frames = max(1, round(seconds * config.mel.sampling_rate / config.mel.hop_length))
    noise = torch.randn(1, frames, config.mel.n_mels, generator=torch_generator(_SEED, "mel"))
    mel = (noise - 3.0).to(where)
    bands_first = mel.mT.contiguous()
    with torch.inference_mode():
        found = take_turns(
            [Case("ours", lambda: ours(mel, None)), Case("theirs", lambda: theirs(bands_first))],
            rounds,
            where,
            "vocoding",
        )
        part = slice(0, min(frames, 50))
        difference = float((ours(mel[:, part], None) - theirs(bands_first[..., part])[:, 0]).abs().max())
    return BigVGANTiming(
        frames * config.mel.hop_length / config.mel.sampling_rate, found["ours"], found["theirs"], difference
    )


def package_hyperparameters(config: BigVGANConfig) -> Any:
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


def bigvgan_of_the_package(vocoder: BigVGAN, config: BigVGANConfig) -> Any:
    """NVIDIA's generator with a vocoder's weights, as it is used: without weight norm."""
    import bigvgan

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)
        model = bigvgan.BigVGAN(package_hyperparameters(config)).eval()
        model.remove_weight_norm()  # says so
    weights: dict[str, Tensor] = {nvidia_name(name): value for name, value in vocoder.state_dict().items()}
    report = model.load_state_dict(weights, strict=False)  # the filters are constants of its own
    unknown = [*report.unexpected_keys, *(key for key in report.missing_keys if not key.endswith("filter"))]
    if unknown:
        raise RuntimeError(f"the package bigvgan is not the version 2 that is known here: {unknown[0]}")
    return model
