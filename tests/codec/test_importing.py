"""Published files, made from their lists of names: what they become does what the originals do."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codec import UserError, export_codec, load_codec, preset_config
from codec.export import with_vocoder
from codec.hh_codec.modeling import HHCodecModel
from codec.importing import import_weights
from codec.importing.hh_codec import NOT_NEEDED, Names, hh_codec_config
from codec.importing.state_dict import load_renamed
from codec.loading import load_vocoder
from codec.nn.blocks import fold_weight_norm
from codec.training.config import CodecTrainingConfig, Stage
from codec.training.initialization import build_model
from tests.codec import original_hh_codec as original
from tests.codec.reference_keys import parameters, published_shapes, random_state
from tests.codec.small_codecs import speech_like
from tests.codec.test_bigvgan import reference_bigvgan


def lightning_file(path: Path, epoch: int = 20) -> dict[str, Tensor]:
    """Write a checkpoint as the original's training would, and return its averaged inference weights."""
    shapes = published_shapes("hh_codec") | {
        f"bigvqgan.{name}": shape for name, shape in published_shapes("bigvgan_v2").items()
    }
    raw, average = (random_state(shapes, seed) for seed in (0, 1))
    for state in (raw, average):
        state["quantize.layers.0.frozen_codebook"] = raw["quantize.layers.0.frozen_codebook"]
        for name in [name for name in state if name.startswith("quantize.layers.1.code_transform")]:
            state[name] = state[name.replace("layers.1", "layers.0")]
    trainable = {
        name: value
        for name, value in average.items()
        if not name.endswith("filter") and "frozen_codebook" not in name and "layers.1" not in name
    }
    averages = {f"model_ema.{name.replace('.', '')}": value for name, value in trainable.items()}
    rest = {
        "model_ema.decay": torch.tensor(0.999),
        "model_ema.num_updates": torch.tensor(-1),
        "decoder.model.0.conv.conv.bias": torch.randn(4),  # built by the original, used by nothing
        "loss.multiperioddisc.discriminators.0.convs.0.bias": torch.randn(4),
    }
    content = {"state_dict": {**raw, **averages, **rest}, "epoch": epoch, "optimizer_states": [{"state": {}}]}
    torch.save(content, path)
    return {**raw, **average}


@pytest.fixture(scope="module")
def hh_codec_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("original") / "epoch=20.ckpt"
    return path, lightning_file(path)


@torch.no_grad()
def test_an_original_hh_codec_encodes_and_decodes_as_the_original(
    hh_codec_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, state = hh_codec_file
    imported = import_weights(path, tmp_path / "codec")
    codec = load_codec(tmp_path / "codec")
    assert (imported.kind, codec.config.fingerprint) == ("hh-codec", imported.config.fingerprint)
    assert codec.config.hop_length == 1_024
    waveform = speech_like(1, 30 * 1_024)[:, None]
    latent = original.encode(state, waveform)
    torch.testing.assert_close(codec.encode_to_latent(waveform).latent.mT, latent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(codec.effective_codebook(), original.effective_codebook(state))
    codes = original.quantize(state, latent)
    assert torch.equal(codec.encode(waveform).audio_codes[0, 0], codes)
    assert len(codes.unique()) > 1
    decoded = codec.decode(codes[None, None])
    mel = original.decode(state, original.effective_codebook(state)[codes].T[None])
    torch.testing.assert_close(decoded.mel.mT, mel, atol=1e-4, rtol=1e-4)
    vocoder = {name.removeprefix("bigvqgan."): v for name, v in state.items() if name.startswith("bigvqgan.")}
    expected = reference_bigvgan(vocoder)(mel)
    torch.testing.assert_close(decoded.audio_values, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_training_goes_on_from_an_import_that_kept_what_it_needs(
    hh_codec_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, _ = hh_codec_file
    assert "to train on" in str(import_weights(path, tmp_path / "kept", trainable=True))
    import_weights(path, tmp_path / "exported")
    learning = Stage(steps=1, train=["encoder", "quantizer", "decoder"])
    kept = str(tmp_path / "kept")
    model = build_model(CodecTrainingConfig(model=kept, initialize={"all": kept}, stages=[learning]))
    assert not model.config.exported and model.quantizer.config.training_quantizers == 2
    exported = load_codec(tmp_path / "exported").state_dict()
    for name, weights in export_codec(model).state_dict().items():
        # weight norm has been folded once more
        torch.testing.assert_close(weights, exported[name], atol=1e-6, rtol=1e-5)
    with pytest.raises(UserError, match="exists: give another"):
        import_weights(path, tmp_path / "exported", trainable=True)


def test_raw_weights_are_others_than_averaged_ones(
    hh_codec_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, _ = hh_codec_file
    import_weights(path, tmp_path / "codec", weights="raw")
    raw = torch.load(path, weights_only=True)["state_dict"]
    waveform = speech_like(1, 9 * 1_024)[:, None]
    latent = load_codec(tmp_path / "codec").encode_to_latent(waveform).latent
    torch.testing.assert_close(latent.mT, original.encode(raw, waveform), atol=1e-4, rtol=1e-4)


def test_an_average_of_nothing_is_refused(tmp_path: Path) -> None:
    lightning_file(tmp_path / "early.ckpt", epoch=3)
    with pytest.raises(UserError, match=r"epoch 3.*--weights raw"):
        import_weights(tmp_path / "early.ckpt", tmp_path / "codec")
    assert not (tmp_path / "codec").exists()


def test_published_shapes_are_those_of_the_preset() -> None:
    """At full size, without data: every name is found, every shape fits."""
    shapes = published_shapes("hh_codec")
    shapes |= {f"bigvqgan.{name}": shape for name, shape in published_shapes("bigvgan_v2").items()}
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        config = hh_codec_config(state, Path("x"))
        model = HHCodecModel(preset_config("hh-codec"))
        load_renamed(model, state, Names(4).foreign, NOT_NEEDED, Path("x"))
    assert config.to_dict() == preset_config("hh-codec").to_dict()


def test_every_part_has_the_published_number_of_parameters() -> None:
    shapes = published_shapes("hh_codec")
    with torch.device("meta"):
        model = HHCodecModel(preset_config("hh-codec"))

    def ours(*modules: torch.nn.Module) -> int:
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    def theirs(prefix: str) -> int:
        return parameters({name: shape for name, shape in shapes.items() if name.startswith(prefix)})

    head = ours(model.decoder.mel_head)
    found = {
        "encoder.": ours(model.encoder),
        "quantize.layers.0.code_transform.": ours(model.quantizer),
        "backbone.": ours(model.decoder) - head,
        "melhead.": head,
    }
    assert found == {prefix: theirs(prefix) for prefix in found}
    vocoder = ours(model.vocoder)
    assert vocoder == parameters(published_shapes("bigvgan_v2"))
    millions = [round(number / 1e6, 1) for number in (*found.values(), vocoder)]
    assert millions == [17.1, 1.1, 61.9, 0.3, 112.4]


@torch.no_grad()
@pytest.mark.parametrize(("folded", "with_config"), [(False, True), (True, False)])
def test_an_imported_bigvgan_sounds_as_the_package(folded: bool, with_config: bool, tmp_path: Path) -> None:
    state = random_state(published_shapes("bigvgan_v2"))
    torch.save({"generator": fold_weight_norm(state) if folded else state}, tmp_path / "bigvgan_generator.pt")
    if with_config:
        (tmp_path / "config.json").write_text(json.dumps(BIGVGAN_JSON))
    import_weights(tmp_path / "bigvgan_generator.pt", tmp_path / "vocoder")
    vocoder = load_vocoder(tmp_path / "vocoder")
    assert vocoder.config.mel == preset_config("hh-codec").vocoder_config.mel
    mel = torch.randn(2, 100, 20, generator=torch.Generator().manual_seed(2)) - 3
    expected = reference_bigvgan(state)(mel)[:, 0]
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(vocoder(mel.mT, None), expected, atol=1e-4, rtol=0)


BIGVGAN_JSON: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [4, 4, 2, 2, 2, 2],
    "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
    "upsample_initial_channel": 192,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "activation": "snakebeta",
    "snake_logscale": True,
    "num_mels": 100,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 24000,
    "fmin": 0,
    "fmax": None,
}


@torch.no_grad()
def test_an_imported_vocos_sounds_as_the_package(tmp_path: Path) -> None:
    package = pytest.importorskip("vocos")
    state = random_state(published_shapes("vocos_mel_24khz"))
    state["head.istft.window"] = torch.hann_window(1024)
    window = state.pop("feature_extractor.mel_spec.spectrogram.window")
    bank = state.pop("feature_extractor.mel_spec.mel_scale.fb")
    state["head.out.weight"] = torch.randn(1026, 64) * 0.1
    state["head.out.bias"] = torch.randn(1026) * 0.1
    published = {
        **state,
        "feature_extractor.mel_spec.spectrogram.window": window,
        "feature_extractor.mel_spec.mel_scale.fb": bank,
    }
    torch.save(published, tmp_path / "pytorch_model.bin")
    import_weights(tmp_path / "pytorch_model.bin", tmp_path / "vocoder")
    backbone = package.models.VocosBackbone(100, 64, 192, 8)
    head = package.heads.ISTFTHead(64, 1024, 256, padding="center")
    backbone.load_state_dict(
        {name.removeprefix("backbone."): v for name, v in state.items() if name.startswith("backbone.")}
    )
    head.load_state_dict(
        {name.removeprefix("head."): v for name, v in state.items() if name.startswith("head.")}
    )
    mel = torch.randn(2, 100, 31, generator=torch.Generator().manual_seed(2)) - 3
    vocoder = load_vocoder(tmp_path / "vocoder")
    assert vocoder.config.mel == preset_config("hh-codec-24hz-vocos").vocoder_config.mel
    torch.testing.assert_close(vocoder(mel.mT, None), head(backbone(mel)), atol=1e-4, rtol=1e-4)


def test_training_starts_from_an_imported_vocoder_and_codecs_take_it(
    hh_codec_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, _ = hh_codec_file
    state = random_state(published_shapes("bigvgan_v2"), seed=5)
    torch.save({"generator": state}, tmp_path / "bigvgan_generator.pt")
    import_weights(tmp_path / "bigvgan_generator.pt", tmp_path / "vocoder")
    exported = import_weights(path, tmp_path / "codec")
    codec = load_codec(tmp_path / "codec")
    unexported = {**codec.config.to_dict(), "exported": False, "fingerprint": None}
    HHCodecModel(type(codec.config)(**unexported)).config.save_pretrained(tmp_path / "fresh")
    config = CodecTrainingConfig(
        model=str(tmp_path / "fresh"), initialize={"vocoder": str(tmp_path / "vocoder")}
    )
    started = build_model(config)
    mel = torch.randn(1, 9, 100) - 3
    with torch.no_grad():
        expected = load_vocoder(tmp_path / "vocoder")(mel, None)
        assert any("parametrizations" in name for name, _ in started.vocoder.named_parameters())
        torch.testing.assert_close(started.vocoder(mel, None), expected, atol=1e-5, rtol=1e-4)
        swapped = with_vocoder(codec, load_vocoder(tmp_path / "vocoder"))
        torch.testing.assert_close(swapped.vocoder(mel, None), expected)
    assert swapped.config.fingerprint == exported.config.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("conv_pre.bias"), "missing conv_pre.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda state: state.update({"conv_post.weight_v": torch.zeros(1, 3, 9)}),
            re.escape("another shape conv_post.weight [1, 3, 9] for [1, 3, 7]"),
        ),
    ],
)
def test_a_file_that_is_not_understood_is_refused_in_one_line(
    change: Any, words: str, tmp_path: Path
) -> None:
    state = random_state(published_shapes("bigvgan_v2"))
    change(state)
    torch.save({"generator": state}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=words):
        import_weights(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_weights_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"generator": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="never loaded"):
        import_weights(tmp_path / "trap.pt", tmp_path / "out")
    assert not (tmp_path / "sprung").exists()
    torch.save({"state_dict": {}, "hyper_parameters": argparse.Namespace(a=1)}, tmp_path / "more.ckpt")
    with pytest.raises(UserError, match=r"more than weights \(argparse.Namespace\).*save its state_dict"):
        import_weights(tmp_path / "more.ckpt", tmp_path / "out")
    torch.save({"generator": torch.zeros(1)}, tmp_path / "tensor.pt")
    with pytest.raises(UserError, match="generator is no dictionary"):
        import_weights(tmp_path / "tensor.pt", tmp_path / "out", "bigvgan")
    torch.save({"generator": random_state(published_shapes("bigvgan_v2"))}, tmp_path / "g.pt")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no hyperparameters: it is a list"):
        import_weights(tmp_path / "g.pt", tmp_path / "out")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"no known kind.*begins with a"):
        import_weights(tmp_path / "other.pt", tmp_path / "out")
    with pytest.raises(UserError, match="not there"):
        import_weights(tmp_path / "absent.pt", tmp_path / "out")
