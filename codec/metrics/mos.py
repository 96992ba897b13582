"""Mean opinion scores that networks predict without a reference: DNSMOS, UTMOS and DistillMOS.

DNSMOS (Reddy et al., ICASSP 2021 and 2022): Microsoft's models, whose weights come in the package speechmos. Its own
code is not used: it imports librosa, which compiles for minutes.

UTMOS (Saeki et al., arXiv 2204.02152), the strong learner: wav2vec 2.0 base, embeddings of one listener and one data
set, an LSTM in both directions, a projection. The mean over frames is the score. Weights are read from
`utmos22_strong_step7459_v1.pt`, as the GitHub project tarepan/SpeechMOS publishes them (MIT licence).

DistillMOS (Stahl and Gamper, arXiv 2502.05356): the package distillmos has the model and its weights.
"""

import contextlib
import io
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from codec.foundation.errors import UserError
from codec.metrics.metric import Column, require
from codec.metrics.spectral import resampled

SAMPLING_RATE = 16_000  # of all three
_WINDOW_SECONDS = 9.01  # what the models were trained on
_WINDOW = int(_WINDOW_SECONDS * SAMPLING_RATE)
# P.835 scores are second-degree polynomials of what the network says (coefficients from the power 2 down to 0)
_SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
_BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)
# P.808 starts from a mel spectrogram
_N_FFT, _HOP, _MELS = 321, 160, 120

SHORTEST_SAMPLES = 400  # of the first frame
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_HEAD_DIM = 64

# names of the published file -> those of `transformers`' Wav2Vec2Model
_NAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.0\.2\.", r"feature_extractor.conv_layers.0.layer_norm."),
    (r"^layer_norm\.", r"feature_projection.layer_norm."),
    (r"^post_extract_proj\.", r"feature_projection.projection."),
    (r"^encoder\.pos_conv\.0\.weight_g$", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", r"encoder.pos_conv_embed.conv.bias"),
    (r"\.self_attn_layer_norm\.", r".layer_norm."),
    (r"\.self_attn\.", r".attention."),
    (r"\.fc1\.", r".feed_forward.intermediate_dense."),
    (r"\.fc2\.", r".feed_forward.output_dense."),
    (r"^mask_emb$", r"masked_spec_embed"),
)


@dataclass(frozen=True)
class DNSMOSScore:
    """Predicted opinions, about 1 to 5."""

    overall: float  # P.835
    signal: float  # P.835: the speech itself
    background: float  # P.835: what is behind it
    p808: float  # the single question of P.808


def dnsmos(waveform: Tensor, sampling_rate: int) -> DNSMOSScore:
    """Score (samples,): the mean over windows of 9 s, one a second; shorter recordings are repeated to fill one.

    NaN for an empty recording. Raises MissingDependency without speechmos or onnxruntime.
    """
    samples = resampled(waveform, sampling_rate, SAMPLING_RATE).clamp(-1.0, 1.0)
    if not len(samples):
        return DNSMOSScore(*[math.nan] * 4)
    while len(samples) < _WINDOW:
        samples = torch.cat([samples, samples])
    sessions = _sessions()
    windows = max(1, int(len(samples) // SAMPLING_RATE - _WINDOW_SECONDS) + 1)
    rows = []
    for number in range(windows):
        window = samples[number * SAMPLING_RATE :][:_WINDOW]
        if len(window) < _WINDOW:
            break
        signal, background, overall = sessions.p835.run(None, {"input_1": window[None].numpy()})[0][0]
        mel = _mel_decibels(window[:-_HOP])[None].numpy()
        (p808,) = sessions.p808.run(None, {"input_1": mel})[0][0]
        rows.append(
            [
                _polynomial(_OVERALL, overall),
                _polynomial(_SIGNAL, signal),
                _polynomial(_BACKGROUND, background),
                float(p808),
            ]
        )
    return DNSMOSScore(*torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist())


@dataclass(frozen=True)
class _Sessions:
    p835: Any
    p808: Any


@lru_cache(maxsize=1)
def _sessions() -> _Sessions:
    models = Path(str(require("speechmos", "DNSMOS").__file__)).parent / "dnsmos_models"
    runtime = require("onnxruntime", "DNSMOS")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = (
        torch.get_num_threads()
    )  # not one a core: scoring processes share the cores
    return _Sessions(
        *(
            runtime.InferenceSession(str(models / name), options, providers=["CPUExecutionProvider"])
            for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
        )
    )


def _polynomial(coefficients: tuple[float, ...], value: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * float(value) + coefficient
    return total


def _mel_decibels(samples: Tensor) -> Tensor:
    """(samples,) -> (frames, 120): decibels below the loudest point, 80 at most, mapped to -1 ... 1."""
    spectrum = torch.stft(
        samples,
        _N_FFT,
        _HOP,
        window=torch.hann_window(_N_FFT),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().T @ _filters()  # (frames, mels)
    decibels = 10.0 * power.clamp_min(1e-10).log10()
    return ((decibels - decibels.max()).clamp_min(-80.0) + 40.0) / 40.0


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """(bins, mels) of area-normalised triangles on Slaney's scale.

    Not torchaudio's: with an odd FFT size the last bin is below half the sampling rate, which it does not allow for.
    """
    bins = torch.arange(_N_FFT // 2 + 1, dtype=torch.float64) * SAMPLING_RATE / _N_FFT
    # Slaney's scale: linear up to 1 kHz, mel 15, and then 27 steps for a factor of 6.4
    top = 15.0 + 27.0 * math.log(SAMPLING_RATE / 2 / 1_000.0) / math.log(6.4)
    mels = torch.linspace(0.0, top, _MELS + 2, dtype=torch.float64)
    edges = torch.where(mels < 15.0, mels * 200.0 / 3.0, 1_000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return (triangles * 2.0 / (edges[2:] - edges[:-2])).float()


@lru_cache(maxsize=1)
def _distill_mos_model() -> Any:
    package = require("distillmos", "DistillMOS")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the path of its weights
        return package.ConvTransformerSQAModel().eval()


@torch.inference_mode()
def distill_mos(waveform: Tensor, sampling_rate: int) -> float:
    """Score (samples,), about 1 to 5; NaN for less than 0.1 s. Raises MissingDependency without distillmos."""
    samples = resampled(waveform, sampling_rate, SAMPLING_RATE)
    if len(samples) < 0.1 * SAMPLING_RATE:
        return math.nan
    return float(_distill_mos_model()(samples[None]))


class UTMOSPredictor(nn.Module):
    """The network; sizes follow from the weights.

    Args:
        weights: names and tensors of the published file.

    Raises ValueError for tensors that do not make such a model.
    """

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        speech = {
            _renamed(name.removeprefix("wav2vec2.")): tensor
            for name, tensor in weights.items()
            if name.startswith("wav2vec2.")
        }
        rest = {name: tensor for name, tensor in weights.items() if not name.startswith("wav2vec2.")}
        try:
            self.wav2vec2 = _wav2vec2(speech)
            self.wav2vec2.load_state_dict(speech)
            self.domain_emb = nn.Parameter(torch.empty_like(rest["domain_emb"]))
            self.judge_emb = nn.Parameter(torch.empty_like(rest["judge_emb"]))
            hidden, width = rest["blstm.weight_hh_l0"].shape[1], rest["blstm.weight_ih_l0"].shape[1]
            self.blstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
            middle = rest["projection.0.weight"].shape[0]
            self.projection = nn.Sequential(nn.Linear(2 * hidden, middle), nn.ReLU(), nn.Linear(middle, 1))
            own = {name for name in self.state_dict() if not name.startswith("wav2vec2.")}
            if differing := sorted(own ^ set(rest)):
                raise KeyError(differing[0])
            self.load_state_dict(rest, strict=False)
        except (KeyError, RuntimeError, IndexError) as error:
            raise ValueError(f"not the weights of UTMOS ({' '.join(str(error).split())[:200]})") from error
        self.eval().requires_grad_(False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(batch, samples) at 16 kHz -> (batch,) scores, about 1 to 5."""
        features = self.wav2vec2(waveform).last_hidden_state  # (batch, frames, dim)
        batch, frames, _ = features.shape
        about = torch.cat([self.domain_emb, self.judge_emb], dim=1)[:, None].expand(batch, frames, -1)
        opinions = self.projection(self.blstm(torch.cat([features, about], dim=2))[0])[..., 0]
        return opinions.mean(dim=1) * 2.0 + 3.0  # trained on opinions scaled to -1 ... 1


class UTMOS:
    """The score of a recording by itself.

    Args:
        path: the published file, or a safetensors file of the same names.

    Raises UserError for any other file.
    """

    column = Column("utmos", "UTMOS", "higher", 2)
    needs_reference = False

    def __init__(self, path: str | Path, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        try:
            if Path(path).suffix == ".safetensors":
                weights = load_file(path)
            else:
                weights = torch.load(path, map_location="cpu", weights_only=True)
            self.predictor = UTMOSPredictor(weights).to(self.device)
        except (OSError, RuntimeError, ValueError, AttributeError, UnpicklingError, SafetensorError) as error:
            raise UserError(
                f"{path} does not hold UTMOS: {' '.join(str(error).split())[:300]} (expected "
                "utmos22_strong_step7459_v1.pt of github.com/tarepan/SpeechMOS)"
            ) from error

    @torch.inference_mode()
    def __call__(self, reference: Tensor | None, estimate: Tensor, sampling_rate: int) -> float:
        """Score the estimate (samples,), whatever the reference; NaN for less than 25 ms."""
        samples = resampled(estimate, sampling_rate, SAMPLING_RATE)
        if len(samples) < SHORTEST_SAMPLES:
            return float("nan")
        return float(self.predictor(samples[None].to(self.device)))


def _wav2vec2(weights: dict[str, Tensor]) -> nn.Module:
    """An empty wav2vec 2.0 of the sizes that its weights have."""
    convolutions = [weights[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(len(_STRIDES))]
    # (dim, dim / groups, kernel)
    dim, group, kernel = weights["encoder.pos_conv_embed.conv.parametrizations.weight.original1"].shape
    layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}
    config = Wav2Vec2Config(
        hidden_size=dim,
        num_hidden_layers=len(layers),
        num_attention_heads=dim // _HEAD_DIM,
        intermediate_size=weights["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        conv_dim=[weight.shape[0] for weight in convolutions],
        conv_kernel=[weight.shape[2] for weight in convolutions],
        conv_stride=list(_STRIDES),
        num_conv_pos_embeddings=kernel,
        num_conv_pos_embedding_groups=dim // group,
    )
    return Wav2Vec2Model(config)


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name
