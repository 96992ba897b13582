"""How codecs start: layers and codebook from data, codes in use over the first steps; warning and best checkpoint."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codec.foundation import RunDirectory, UserError
from codec.hh_codec.configuration import SLMVQConfig
from codec.hh_codec.slm_vq import SLMVQ
from codec.kmeans_codec.fitting import fit_kmeans
from codec.loading import load_trained, model_of
from codec.losses.config import LossWeights
from codec.nn.kernels import nearest
from codec.nn.sequences import mask_from_lengths
from codec.training.batches import collate
from codec.training.config import OptimizerConfig, Stage
from codec.training.loop import train_codec
from codec.training.validation import perplexity
from recipes.cli.arguments import build_parser
from recipes.cli.train import train_codec_command
from recipes.codec_data import training_data
from recipes.codec_recipe import CodecCorpus, CodecRecipe
from tests.codec.small_codecs import small_config, speech_like
from tests.codec.training_runs import CODES, DISCRIMINATORS, JOINT, VOCODER, log_of, run_config, speech_data

REPOSITORY = Path(__file__).parents[2]
WAVEFORM = ("hh-codec", "hh-codec-24hz", "hh-codec-24hz-vocos", "hh-codec-24hz-streaming", "hybrid-codec")


def kmeans_perplexity(latents: Tensor, codes: int) -> float:
    """Perplexity that k-means of these latents (frames, dim) reaches on them."""
    count = min(codes, len(latents))
    return perplexity(torch.bincount(nearest(latents, fit_kmeans(latents, count).centroids), minlength=count))


# ---- initialisation from data


@pytest.mark.parametrize("preset", WAVEFORM)
def test_every_layer_of_the_encoder_starts_standardised(preset: str) -> None:
    torch.manual_seed(0)
    model = model_of(small_config(preset))
    waveform = speech_like(3, 48_000)
    lengths = torch.tensor([48_000, 48_000, 24_000])
    padding_mask = mask_from_lengths(lengths)
    model.calibrate(waveform[:, None], padding_mask)
    found: list[Tensor] = []

    def note(layer: torch.nn.Module, inputs: object, output: Tensor) -> None:
        rows = output.detach().movedim(layer.channel_dim, -1)  # type: ignore[arg-type]
        own = math.ceil(24_000 / model.config.hop_length) * rows.shape[1] // frames
        start = 8 * rows.shape[1] // frames
        found.append(torch.cat([rows[0, start:], rows[1, start:], rows[2, start:own]]))

    frames = math.ceil(48_000 / model.config.hop_length)
    layers = [module for module in model.encoder.modules() if hasattr(module, "channel_dim")]
    for layer in layers:
        layer.register_forward_hook(note)
    latent = model.encode_to_latent(waveform[:, None], padding_mask).latent
    assert len(found) == len(layers) >= 14
    for rows in found:
        last = rows.shape[-1] ** -0.5 if rows is found[-1] else 1.0
        assert rows.mean(dim=0).abs().max() < 1e-3
        torch.testing.assert_close(rows.std(dim=0), torch.full(rows.shape[1:], last), atol=2e-3, rtol=0)
    # 20 and more before the layers were scaled
    settled = latent[:2, 8:].flatten(0, 1)
    assert settled.mean(dim=0).abs().mean() < 0.5 * settled.std(dim=0).mean()


@pytest.mark.parametrize("preset", WAVEFORM[:4])
def test_short_clips_do_not_spike_the_vq_loss(preset: str) -> None:
    torch.manual_seed(0)
    model = model_of(small_config(preset))
    model.calibrate(speech_like(8, 48_000)[:, None])
    model.eval()
    waveform = speech_like(8, 60_000, seed=1)[:, None, 12_000:]

    @torch.no_grad()
    def vq_loss(samples: int) -> float:
        latent = model.encode_to_latent(waveform[..., :samples]).latent
        return float(model.quantizer(latent).loss)

    long = vq_loss(48_000)
    for seconds in (0.03, 0.05, 0.1, 0.2, 0.3):
        assert vq_loss(round(24_000 * seconds)) < 1.5 * long


def test_a_random_codebook_is_spread_by_reverse_water_filling() -> None:
    torch.manual_seed(0)
    dim, codes = 64, 512
    scales = torch.linspace(1.0, 0.3, dim)
    turn = torch.linalg.qr(torch.randn(dim, dim)).Q
    latents = (torch.randn(20_000, dim) * scales) @ turn.T + 3.0
    quantizer = SLMVQ(SLMVQConfig(codebook_size=codes, dim=dim, hidden_dim=48), exported=False)
    quantizer.calibrate(latents[:10_000])

    # the level by bisection: the rate falls as it rises
    variances, directions = torch.linalg.eigh(torch.cov(latents[:10_000].double().T))
    low, high = 1e-9, float(variances.max())
    for _ in range(200):
        level = (low * high) ** 0.5
        rate = 0.5 * (variances / level).clamp_min(1).log2().sum()
        low, high = (level, high) if rate > math.log2(codes) else (low, level)
    wanted = directions @ torch.diag((variances - level).clamp_min(0)) @ directions.T
    codebook = quantizer.effective_codebook().detach()
    torch.testing.assert_close(torch.cov(codebook.T), wanted.float(), atol=5e-3, rtol=0)
    torch.testing.assert_close(codebook.mean(dim=0), latents[:10_000].mean(dim=0), atol=1e-3, rtol=0)

    def error(book: Tensor) -> float:
        found = nearest(latents[10_000:], book)
        return float((latents[10_000:] - book[found]).square().sum(dim=1).mean())

    # nearer than the mean, as codes spread as the latents are would not be
    total = float(variances.sum())
    assert (
        float(variances.clamp_max(level).sum())
        < error(codebook)
        < 0.95 * total
        < total
        < error(latents[:codes])
    )


# ---- the first steps


def check_start(recipe: CodecRecipe) -> None:
    """Train, and assert that codes stay in use and the mel comes nearer."""
    data = training_data(recipe)
    train_codec(recipe, data)
    model = load_trained(recipe.output)
    batch = collate([data.segments(2.0)[index] for index in range(1_000, 1_016)])
    padding_mask = mask_from_lengths(batch["length"], batch["waveform"].shape[1])
    with torch.no_grad():
        output = model.encode_to_latent(batch["waveform"][:, None], padding_mask)
        codes = model.quantize(output.latent, output.frame_mask)[:, 0][output.frame_mask]
    latents, size = output.latent[output.frame_mask], model.config.codebook_sizes[0]
    in_use = perplexity(torch.bincount(codes, minlength=size))
    lines = log_of(Path(recipe.output))
    mel = [line["mel" if recipe.stages[0].losses.mel else "waveform_mel"] for line in lines]
    assert in_use >= 0.05 * kmeans_perplexity(latents, size)
    assert mel[-1] < mel[0]


def sample_recipe(output: Path, model: str, stage: Stage, hybrid: bool) -> CodecRecipe:
    """A run on the sample corpus, with the published weights of what a stage without a GAN learns by."""
    losses = LossWeights(mel=0, waveform_mel=15, vq=1) if hybrid else LossWeights(mel=45, vq=1_000)
    return CodecRecipe(
        output=str(output),
        model=model,
        stages=[dataclasses.replace(stage, losses=losses)],
        corpora=[CodecCorpus(str(REPOSITORY / "recipes/bundled/sample_corpus"), validation_limit=0)],
        ema_decay=0,
        log_every=5,
    )


@pytest.mark.parametrize("preset", ["hh-codec-24hz-streaming", "hybrid-codec"])
def test_codes_stay_in_use_over_the_first_steps(preset: str, tmp_path: Path) -> None:
    config = small_config(preset)
    config.quantizer["semantic_codebook_size" if preset == "hybrid-codec" else "codebook_size"] = 1_024
    config.save_pretrained(tmp_path / "small")
    stage = Stage(steps=10, segment_seconds=0.5, batch_size=4)
    check_start(
        sample_recipe(tmp_path / "run", str(tmp_path / "small"), stage, hybrid=preset == "hybrid-codec")
    )


@pytest.mark.slow
@pytest.mark.parametrize("preset", WAVEFORM)
def test_every_full_preset_starts(preset: str, tmp_path: Path) -> None:
    stage = Stage(steps=50, segment_seconds=2.0, batch_size=2)
    check_start(sample_recipe(tmp_path / "run", preset, stage, hybrid=preset == "hybrid-codec"))


@pytest.mark.slow
def test_half_the_width_learns_within_a_thousand_steps(tmp_path: Path) -> None:
    speech = REPOSITORY.parent / "shared/speech"
    if not speech.is_dir():
        pytest.skip("no speech to learn from")
    parser = build_parser(train_codec_command, "codec-slm train-codec")
    path = REPOSITORY / "recipes/hh_codec/half_width.yaml"
    values = parser.instantiate(parser.parse_args(["--config", str(path), "--output", str(tmp_path / "run")]))
    recipe = CodecRecipe(**{name: values[name] for name in CodecRecipe.__dataclass_fields__})
    corpora = [
        CodecCorpus(str(speech / name), weight, gain_db=(-12.0, -1.0), validation_limit=10)
        for name, weight in (("kathleen", 0.4), ("kerstin", 0.25), ("libri251", 0.35))
    ]
    stages = [dataclasses.replace(recipe.stages[0], steps=1_000)]
    recipe = dataclasses.replace(recipe, stages=stages, corpora=corpora)
    metrics = train_codec(recipe, training_data(recipe)).metrics
    assert metrics["perplexity"] >= 500
    mel = [value for name, value in metrics.items() if name.endswith("/mel_l1")]
    assert len(mel) == 3 and sum(mel) / len(mel) < 0.9


# ---- what training says, and what it keeps


def test_perplexity_counts_codes_as_if_used_equally_often() -> None:
    assert perplexity(torch.tensor([0, 7, 0])) == pytest.approx(1.0)
    assert perplexity(torch.full((8,), 3)) == pytest.approx(8.0)
    assert perplexity(torch.tensor([2, 1, 1, 0])) == pytest.approx(2**1.5)


def test_a_low_perplexity_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_codec(run_config(tmp_path / "low", CODES, least_perplexity=1.0), speech_data())
    said = [line for line in capsys.readouterr().out.splitlines() if "perplexity" in line]
    assert len(said) == 1 and said[0].startswith("step 1: perplexity ") and "of 64 codes" in said[0]
    train_codec(run_config(tmp_path / "high", CODES), speech_data())
    assert "perplexity" not in capsys.readouterr().out
    lines = log_of(tmp_path / "high")
    assert all(1 < line["perplexity"] <= 64 for line in lines if "loss" in line)
    with pytest.raises(UserError, match=r"least_perplexity is 1\.5"):
        run_config(tmp_path / "wrong", CODES, least_perplexity=1.5)


def test_the_score_weighs_distances_as_the_stage_weighs_its_losses(tmp_path: Path) -> None:
    parts = ["encoder", "quantizer", "decoder", "vocoder"]
    losses = LossWeights(mel=45, waveform_mel=10, multi_scale=5)
    stage = dataclasses.replace(CODES, steps=4, train=parts, losses=losses)
    train_codec(
        run_config(tmp_path / "run", stage, evaluate_every=2, checkpoint_every=2),
        speech_data(validation=True),
    )
    scored = [line for line in log_of(tmp_path / "run") if "validation/score" in line]
    for line in scored:
        mel, audio = (
            sum(line[f"validation/{name}/{kind}"] for name in ("low", "high")) / 2
            for kind in ("mel_l1", "waveform_mel_l1")
        )
        assert line["validation/score"] == pytest.approx((45 * mel + 15 * audio) / 60)
    best = min(scored, key=lambda line: line["validation/score"])["step"]
    assert RunDirectory(tmp_path / "run").best().name == f"step-{best:08d}"  # type: ignore[union-attr]


def test_beside_discriminators_the_newest_checkpoint_is_the_best(tmp_path: Path) -> None:
    # so far from the mel, and farther with every step
    worse = dataclasses.replace(JOINT, optimizer=OptimizerConfig(learning_rate=0.1))
    config = run_config(
        tmp_path / "run",
        VOCODER,
        worse,
        discriminators=DISCRIMINATORS,
        evaluate_every=1,
        checkpoint_every=1,
        keep_last=1,
    )
    train_codec(config, speech_data(validation=True))
    last = VOCODER.steps + worse.steps
    assert RunDirectory(tmp_path / "run").best().name == f"step-{last:08d}"  # type: ignore[union-attr]
