"""import-weights and export --vocoder, as they are typed."""

from pathlib import Path

import pytest
import torch

from codec import load_codec, save_codec
from codec.export import save_vocoder
from codec.loading import load_vocoder
from recipes.cli.main import main
from tests.codec.reference_keys import published_shapes, random_state
from tests.codec.small_codecs import small_codec


def test_a_vocos_is_imported_and_put_into_a_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = save_codec(small_codec("hh-codec-24hz-vocos"), tmp_path / "codec")
    torch.save(random_state(published_shapes("vocos_mel_24khz")), tmp_path / "pytorch_model.bin")
    command = ["import-weights", str(tmp_path / "pytorch_model.bin"), "--output", str(tmp_path / "vocoder")]
    assert main(command) == 0
    assert "imported a vocos vocoder" in capsys.readouterr().out
    assert main(command) == 0  # a vocoder that is there is replaced
    swap = ["export", str(tmp_path / "codec"), "--vocoder", str(tmp_path / "vocoder")]
    assert main([*swap, "--output", str(tmp_path / "swapped")]) == 0
    swapped = load_codec(tmp_path / "swapped")
    assert swapped.config.fingerprint == codec.config.fingerprint
    imported = load_vocoder(tmp_path / "vocoder")
    for name, value in imported.state_dict().items():
        assert torch.equal(swapped.vocoder.state_dict()[name], value)


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    codec = small_codec("hh-codec-tiny")
    save_codec(codec, tmp_path / "codec")
    save_vocoder(small_codec("hh-codec").vocoder, tmp_path / "vocoder")

    def error(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, "--output", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    assert "is of no known kind" in error("import-weights", str(tmp_path / "a.pt"))
    assert "missing conv_pre.weight" in error("import-weights", str(tmp_path / "a.pt"), "--kind", "bigvgan")
    swap = ("export", str(tmp_path / "codec"), "--vocoder")
    assert "train a decoder for it" in error(*swap, str(tmp_path / "vocoder"))
    assert "holds no vocoder" in error(*swap, str(tmp_path / "codec"))
    save_codec(codec, tmp_path / "out")
    torch.save(random_state(published_shapes("vocos_mel_24khz")), tmp_path / "vocos.bin")
    assert "is not a vocoder" in error("import-weights", str(tmp_path / "vocos.bin"))
