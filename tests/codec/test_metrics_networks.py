"""Metrics that are neural networks: DNSMOS, speaker similarity, UTMOS, each against another way to its number."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchaudio
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from codec.foundation import UserError
from codec.metrics import (
    UTMOS,
    PocketSphinxRecognizer,
    SpeakerSimilarity,
    TransformersRecognizer,
    dnsmos,
    open_embedder,
    usable_metrics,
)
from codec.metrics.spectral import resampled
from tests.codec.small_codecs import speech_like

RATE = 16_000


def syllables(seconds: float) -> Tensor:
    times = np.arange(int(seconds * RATE)) / RATE
    source = sum(np.cos(2 * np.pi * 110.0 * k * times + k * k) / k for k in range(1, 40))
    noise = np.random.default_rng(110).standard_normal(len(times))
    samples = 0.1 * source * np.clip(np.sin(2 * np.pi * 2 * times), 0, 1) + 0.002 * noise
    return torch.from_numpy(samples.astype(np.float32))


@pytest.mark.parametrize(
    ("seconds", "overall", "signal", "background", "p808"),
    [
        # what the package speechmos 0.0.1.1 says (with librosa 0.11)
        (2.0, 1.7713710, 2.2512018, 2.3895354, 2.2306545),
        pytest.param(12.3, 1.6808984, 2.1571659, 2.3564335, 2.2626767, marks=pytest.mark.slow),
    ],
)
def test_dnsmos_is_that_of_speechmos(
    seconds: float, overall: float, signal: float, background: float, p808: float
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("speechmos")
    score = dnsmos(syllables(seconds), RATE)
    found = (score.overall, score.signal, score.background, score.p808)
    assert found == pytest.approx((overall, signal, background, p808), abs=1e-4)


def ecapa_weights() -> dict[str, Tensor]:
    """A small ECAPA-TDNN under SpeechBrain's names, of made-up weights."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, kernel: int = 1) -> None:
        shapes[f"{name}.conv.weight"], shapes[f"{name}.conv.bias"] = (out, into, kernel), (out,)

    def norm(name: str, dim: int) -> None:
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.norm.{kind}"] = (dim,)

    def tdnn(name: str, out: int, into: int, kernel: int = 1) -> None:
        conv(f"{name}.conv", out, into, kernel)
        norm(f"{name}.norm", out)

    tdnn("blocks.0", 16, 80, 5)
    for block in ("blocks.1", "blocks.2", "blocks.3"):
        for name in ("tdnn1", "tdnn2"):
            tdnn(f"{block}.{name}", 16, 16)
        for index in range(7):
            tdnn(f"{block}.res2net_block.blocks.{index}", 2, 2, 3)
        conv(f"{block}.se_block.conv1", 8, 16)
        conv(f"{block}.se_block.conv2", 16, 8)
    tdnn("mfa", 24, 48)
    tdnn("asp.tdnn", 4, 72)
    conv("asp.conv", 24, 4)
    norm("asp_bn", 48)
    conv("fc", 6, 48)
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        wave = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.7 + number)
        scale = (shape[1] * shape[2]) ** -0.5 if len(shape) == 3 else 0.3
        offset = 1.0 if name.endswith((".norm.weight", "running_var")) else 0.0
        weights[name] = (offset + scale * wave).float().reshape(shape)
    return weights


def test_ecapa_is_that_of_speechbrain(tmp_path: Path) -> None:
    torch.save(ecapa_weights(), tmp_path / "embedding_model.ckpt")
    embedder = open_embedder(str(tmp_path))
    found = embedder.embed(syllables(2.0), RATE)
    # what the package speechbrain 1.1.2 says of its Fbank, InputNormalization and ECAPA_TDNN with these weights
    expected = torch.tensor([-0.216128, 0.469753, -0.524244, -0.090581, 0.485064, -0.462921])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert embedder.embed(syllables(0.4), RATE) is None
    lacking = {name: tensor for name, tensor in ecapa_weights().items() if name != "asp.conv.conv.bias"}
    torch.save(lacking, tmp_path / "embedding_model.ckpt")
    with pytest.raises(UserError, match=r"cannot load the speaker model .*asp\.conv\.conv\.bias"):
        open_embedder(str(tmp_path))


@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_of_nothing_nothing_is_said(rate: int) -> None:
    """At the networks' own rate, and at a codec's, from which nothing is to be resampled."""
    nothing = torch.zeros(0)
    assert resampled(nothing, rate, RATE).shape == (0,)
    for metric in usable_metrics().metrics:
        assert all(math.isnan(value) for value in metric.measure(nothing, nothing, rate)), metric.name
    if importlib.util.find_spec("pocketsphinx"):
        assert PocketSphinxRecognizer().transcribe(nothing, rate) == ""
    recognizer = TransformersRecognizer.__new__(TransformersRecognizer)  # it asks no model
    recognizer.sampling_rate = RATE
    assert recognizer.transcribe(nothing, rate) == recognizer.transcribe(torch.zeros(300), rate) == ""
    predictor = UTMOS.__new__(UTMOS)  # likewise
    assert math.isnan(predictor(None, nothing, rate))


@pytest.fixture(scope="module")
def speaker_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speaker verification model of two small layers."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("a speaker model")
    config = WavLMConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, tdnn_dim=[24, 24, 24, 24, 48],
        xvector_output_dim=16, num_buckets=32,
    )  # fmt: skip
    WavLMForXVector(config).save_pretrained(directory)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(directory)
    return directory


def test_nobody_speaks_in_nothing(speaker_model: Path) -> None:
    embedder = open_embedder(str(speaker_model))
    assert embedder.embed(torch.zeros(0), 24_000) is None
    assert math.isnan(SpeakerSimilarity(embedder)(torch.zeros(0), torch.zeros(0), 24_000))


def test_speaker_similarity_is_a_cosine(speaker_model: Path) -> None:
    embedder = open_embedder(str(speaker_model))
    similarity = SpeakerSimilarity(embedder)
    one, other = speech_like(2, 24_000)
    assert similarity(one, one, 24_000) == pytest.approx(1.0, abs=1e-5)
    model = WavLMForXVector.from_pretrained(speaker_model).eval()
    inputs = []
    for waveform in (one, other):
        samples = torchaudio.functional.resample(waveform, 24_000, RATE)
        inputs.append((samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt())
    with torch.no_grad():
        a, b = (model(row[None]).embeddings[0] for row in inputs)
    expected = float(F.cosine_similarity(a, b, dim=0))
    assert similarity(one, other, 24_000) == pytest.approx(expected, abs=1e-5)
    longer = torch.cat([other, torch.ones(500)])  # a codec fills its last frame: not heard
    assert similarity(one, longer, 24_000) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(similarity(one[:9_000], one[:9_000], 24_000))


def test_what_is_no_speaker_model(tmp_path: Path, speaker_model: Path) -> None:
    with pytest.raises(UserError, match="cannot load the speaker model"):
        open_embedder(str(tmp_path))
    from transformers import WavLMModel

    directory = tmp_path / "wavlm"
    WavLMModel(WavLMForXVector.from_pretrained(speaker_model).config).save_pretrained(directory)
    Wav2Vec2FeatureExtractor().save_pretrained(directory)
    with pytest.raises(UserError, match="is no speaker model: it lacks"):
        open_embedder(str(directory))


# torchaudio's names of a wav2vec 2.0 -> those of the published UTMOS
_PUBLISHED = (
    ("feature_extractor.conv_layers.0.layer_norm.", "feature_extractor.conv_layers.0.2."),
    (".conv.weight", ".0.weight"),
    ("encoder.feature_projection.layer_norm.", "layer_norm."),
    ("encoder.feature_projection.projection.", "post_extract_proj."),
    ("encoder.transformer.pos_conv_embed.conv.", "encoder.pos_conv.0."),
    ("parametrizations.weight.original0", "weight_g"),
    ("parametrizations.weight.original1", "weight_v"),
    ("encoder.transformer.", "encoder."),
    (".attention.", ".self_attn."),
    (".feed_forward.intermediate_dense.", ".fc1."),
    (".feed_forward.output_dense.", ".fc2."),
)


def published_name(name: str) -> str:
    inner = name.startswith("encoder.transformer.layers.")
    for ours, theirs in _PUBLISHED:
        name = name.replace(ours, theirs)
    # the norm behind the attention; the one behind the feed-forward part is called final_layer_norm by all
    return name.replace(".layer_norm.", ".self_attn_layer_norm.") if inner else name


def test_utmos_is_the_published_network(tmp_path: Path) -> None:
    """Against torchaudio's wav2vec 2.0 and the rest written out, with random weights under the published names."""
    torch.manual_seed(0)
    kernels = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]
    reference = torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm", extractor_conv_layer_config=[(16, k, s) for k, s in kernels],
        extractor_conv_bias=False, encoder_embed_dim=128, encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=16, encoder_pos_conv_groups=4, encoder_num_layers=2, encoder_num_heads=2,
        encoder_attention_dropout=0.1, encoder_ff_interm_features=48, encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.1, encoder_layer_norm_first=False, encoder_layer_drop=0.0, aux_num_out=None,
    ).eval()  # fmt: skip
    blstm = nn.LSTM(128 + 8 + 8, 12, batch_first=True, bidirectional=True)
    projection = nn.Sequential(nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 1))
    domain, judge = torch.randn(1, 8), torch.randn(1, 8)
    weights = {f"wav2vec2.{published_name(n)}": t for n, t in reference.state_dict().items()}
    weights |= {"wav2vec2.mask_emb": torch.zeros(128), "domain_emb": domain, "judge_emb": judge}
    weights |= {f"blstm.{n}": t for n, t in blstm.state_dict().items()}
    weights |= {f"projection.{n}": t for n, t in projection.state_dict().items()}
    assert "wav2vec2.encoder.layers.1.self_attn.q_proj.weight" in weights
    assert "wav2vec2.feature_extractor.conv_layers.3.0.weight" in weights
    torch.save(weights, tmp_path / "utmos.pt")
    utmos = UTMOS(tmp_path / "utmos.pt")
    speech = speech_like(1, 12_345)
    with torch.no_grad():
        features, _ = reference.extract_features(speech)
        features = features[-1]
        about = torch.cat([domain, judge], dim=1)[:, None].expand(1, features.shape[1], -1)
        hidden, _ = blstm(torch.cat([features, about], dim=2))
        expected = float(projection(hidden).mean()) * 2 + 3
    assert utmos(None, speech[0], RATE) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(utmos(None, speech[0, :399], RATE))
    save_file(weights, tmp_path / "utmos.safetensors")
    assert UTMOS(tmp_path / "utmos.safetensors")(None, speech[0], RATE) == pytest.approx(expected, abs=1e-5)
    weights.pop("judge_emb")
    torch.save(weights, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"does not hold UTMOS: .*judge_emb"):
        UTMOS(tmp_path / "other.pt")
