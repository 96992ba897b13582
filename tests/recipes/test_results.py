"""results: what commands left becomes the README's tables, between the comments and nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from codec.foundation import UserError
from data import write_audio
from recipes.cli.main import main
from recipes.reporting.provenance import device_name, provenance
from recipes.reporting.tables import Table
from recipes.results import (
    BEGIN,
    END,
    bench_part,
    codec_part,
    model_part,
    open_results,
    plain_command,
    replace_results,
)
from slm.models.checkpoint import SpeechCapabilities
from tests.codec.small_codecs import speech_like
from tests.recipes.untrained_models import save_codec, save_slm

ORIGIN = {"command": "codec-slm x '/data/my corpus'", "date": "2026-01-31", "device": "a GPU", "threads": 2}


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "level": 0.95}


CODECS = {
    **ORIGIN,
    "corpus": {"name": "kathleen", "split": "validation", "location": "/data/kathleen", "gain": 1.0},
    "asr": "a recogniser",
    "utterances": 12,
    "seconds": 90.0,
    "systems": {
        "recording": {"word_error_rate": interval(0.25)},
        "a | codec": {
            "stoi": {"mean": 0.8512, "utterances": 12},
            "pesq": {"mean": 1.456, "utterances": 12},
            "word_error_rate": interval(0.5),
        },
    },
    "codecs": {"a | codec": {"bitrate": {"nominal": 264.0}, "speed": {"encode": 301.4, "decode": 99.6}}},
}
MODELS = {
    **ORIGIN,
    "model": "/models/slm-tiny",
    "codec": {},
    "sentences": {"count": 20},
    "asr": None,
    "systems": {
        "recordings": {"word_error_rate": interval(0.2)},
        "slt": {
            "word_error_rate": interval(0.5),
            "ended": interval(0.9),
            "duration_ratio": 1.04,
            "real_time": 9.04,
        },
    },
    "pairs": {"sWUGGY": {"pairs": 1_000, "normalized": interval(0.7), "total": interval(0.6)}},
}
BENCH = {
    **ORIGIN,
    "codecs": {
        "MimiModel": {
            "about": "random weights",
            "encode": {"median_real_time": 15.0},
            "decode": {"median_real_time": 18.0},
            "ratios": {"encode": 1.0, "decode": 1.0},
        },
    },
    "budgets": [
        {
            "what": "a",
            "unit": "× b",
            "target": 1.5,
            "measured": 1.25,
            "at_most": False,
            "passed": False,
            "note": "n",
        },
        {
            "what": "c",
            "unit": "GiB",
            "target": 2.0,
            "measured": 1.0,
            "at_most": True,
            "passed": True,
            "note": "",
        },
        {
            "what": "d",
            "unit": "×",
            "target": 2.0,
            "measured": None,
            "at_most": False,
            "passed": None,
            "note": "",
        },
    ],
}


def texts(blocks: list[str | Table]) -> list[str]:
    """Each as Markdown."""
    return list(map(str, blocks))


def write(path: Path, content: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def test_tables_say_what_the_files_say() -> None:
    about, table = texts(codec_part(CODECS))
    assert (
        about
        == "12 recordings (1.5 minutes) of the validation split of kathleen. Error rates by a recogniser."
    )
    header, _, recording, codec = table.splitlines()
    assert header == "|  | STOI ↑ | PESQ wide band ↑ | WER ↓ | bit/s | encode, × real time | decode |"
    assert recording == "| recording | – | – | 25.0 % (15.0–35.0) | – | – | – |"
    assert codec == "| a \\| codec | 0.851 | 1.46 | 50.0 % (40.0–60.0) | 264 | 301 | 100 |"

    about, speaking, pairs = texts(model_part(MODELS))
    assert about == "`slm-tiny` reading 20 sentences."  # nobody listened
    assert speaking.splitlines()[0] == "|  | WER ↓ | ended by itself | length / reference | × real time |"
    assert speaking.splitlines()[3] == "| slt | 50.0 % (40.0–60.0) | 90.0 % (80.0–100.0) | 1.04 | 9.0 |"
    assert pairs.splitlines()[2] == "| sWUGGY | 1,000 | 70.0 % (60.0–80.0) | 60.0 % (50.0–70.0) |"

    codecs, how, budgets = texts(bench_part(BENCH))
    assert "Ratios: the median over rounds of each round's own ratio" in how
    small = {**BENCH["budgets"][1], "passed": None, "instead": "on 10 min"}
    assert "| c | 1.00 GiB | ≤ 2 | on 10 min |  |" in texts(bench_part({**BENCH, "budgets": [small]}))[2]
    assert codecs.splitlines()[2] == "| MimiModel | random weights | 15.0 × | 18.0 × | 1.00 × | 1.00 × |"
    assert budgets.splitlines()[2:] == [
        "| a | 1.25 × b | ≥ 1.5 | missed | n |",
        "| c | 1.00 GiB | ≤ 2 | kept |  |",
    ]


def test_every_part_of_a_language_models_results_has_its_table() -> None:
    content = {
        **MODELS,
        "asr": "a recogniser",
        "continuation": {
            "prompt_seconds": 1.0,
            "split": "validation",
            "corpus": "/data/kathleen",
            "samples": 4,
        },
        "continuations": {
            "systems": {
                "recordings go on": {
                    "prompts": 12,
                    "heard": interval(0.9),
                    "values": {"utmos": interval(3.5)},
                },
                "model": {
                    "prompts": 12,
                    "heard": interval(0.5),
                    "ended": {"value": 0.25, "low": None, "high": None, "level": 0.95},  # of a single prompt
                    "perplexity": interval(150.0),
                    "vert": 0.2,
                    "values": {"utmos": interval(2.5), "prompt_similarity": interval(0.6)},
                    "repeated": interval(0.3),
                },
            },
            "failures": {},
        },
        "cross_modal": {
            "tokens": {
                "rows": 40,
                "left_out": 2,
                "not_trained_on": ["text alone"],
                "bits": {
                    "speech alone": interval(8.5),
                    "speech after its text": interval(7.5),
                    "text alone": interval(3.0),
                },
                "speech_saved": interval(1.0),
                "retrieval": [
                    {
                        "reading": "speech after text",
                        "find": "text for speech",
                        "trials": 40,
                        "chance": 0.1,
                        "accuracy": interval(0.6),
                    }
                ],
            }
        },
        "with_reference": {"slt": {"word_error_rate": interval(0.4), "ended": interval(0.9)}},
    }
    content["systems"] = {
        **MODELS["systems"],
        "slt": {
            **MODELS["systems"]["slt"],
            "at_length": interval(0.8),
            "speaking_rate": interval(12.0),
            "values": {"dnsmos_overall": interval(2.0)},
            "repeated": interval(0.2),
        },
    }
    content["pairs"] = {
        "sWUGGY": {
            **MODELS["pairs"]["sWUGGY"],
            "ceiling": 0.95,
            "categories": {
                "rare": {"pairs": 10, "normalized": interval(0.5), "total": interval(0.4), "ceiling": 1.0}
            },
        }
    }
    about, reading, sound, going_on, continuations, how, pairs, bits, strange, found = texts(
        model_part(content)
    )
    assert about == "`slm-tiny` reading 20 sentences. Error rates by a recogniser."
    assert "| 80.0 % (70.0–90.0) |" in reading and "| slt, sentences with a reference | 40.0 %" in reading
    assert sound.splitlines()[0] == "|  | characters a second | DNSMOS overall ↑ | repeated pairs of frames |"
    assert sound.splitlines()[3] == "| slt | 12.0 (11.9–12.1) | 2.00 (1.90–2.10) | 20.0 % (10.0–30.0) |"
    assert (
        "going on from the first 1 s of recordings (validation split of kathleen), 4 samples each" in going_on
    )
    assert (
        continuations.splitlines()[0]
        == "|  | prompts | ended by itself | with words ↑ | perplexity ↓ | VERT ↓ |"
    )
    assert (
        continuations.splitlines()[3]
        == "| model | 12 | 25.0 % | 50.0 % (40.0–60.0) | 150 (150–150) | 20.0 % |"
    )
    assert "UTMOS ↑" in how and "speaker similarity to the prompt ↑" in how
    assert pairs.splitlines()[2:] == [
        "| sWUGGY | 1,000 | 70.0 % (60.0–80.0) | 60.0 % (50.0–70.0) | 95.0 % |",
        "| … rare | 10 | 50.0 % (40.0–60.0) | 40.0 % (30.0–50.0) | 100.0 % |",
    ]
    assert bits.splitlines()[2] == (
        "| tokens | speech, bits a token | 40 | 8.500 (8.400–8.600) | 7.500 (7.400–7.600) | 1.000 (0.900–1.100) |"
    )
    assert "| 3.000 (2.900–3.100)* | – | – |" in bits and "no such documents" in strange
    assert (
        found.splitlines()[2]
        == "| tokens | text for speech | speech after text | 40 | 60.0 % (50.0–70.0) | 10.0 % |"
    )


def test_the_readme_is_changed_between_its_comments_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n## Results\n\n{BEGIN}\nold\n{END}\n\n## After\n")
    files = [
        *("--codec", write(tmp_path / "codec" / "results.json", CODECS)),
        *(
            "--slm",
            str(Path(write(tmp_path / "slm" / "results.json", MODELS)).parent),
        ),  # its directory will do
        *("--bench", write(tmp_path / "one.json", BENCH), "--bench", write(tmp_path / "two.json", BENCH)),
    ]
    assert main(["results", "--readme", str(readme), *files]) == 0
    first = readme.read_text()
    assert first.startswith(f"# Title\n\n## Results\n\n{BEGIN}\n") and first.endswith(f"{END}\n\n## After\n")
    assert "old" not in first and "### Codecs" in first and "### Speech language models" in first
    assert first.count("`codec-slm x 'my corpus'`, 2026-01-31, a GPU, 2 threads") == 4
    assert "/data" not in first and "/models" not in first
    assert main(["results", "--readme", str(readme), *files]) == 0
    assert readme.read_text() == first


@pytest.mark.parametrize("text", ["none", f"{BEGIN}", f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_its_comments_is_told_where_they_go(text: str) -> None:
    with pytest.raises(UserError, match="put the line"):
        replace_results(text, "section")


def test_files_that_are_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = Path(write(tmp_path / "codec.json", CODECS))
    with pytest.raises(UserError, match="not a file that codec-slm bench left"):
        open_results(codec, "bench")
    with pytest.raises(UserError, match="not a file that codec-slm evaluate-slm left"):
        open_results(codec, "evaluate-slm")
    undated = {key: value for key, value in BENCH.items() if key != "date"}
    with pytest.raises(UserError, match="does not say its date; run codec-slm bench again"):
        open_results(Path(write(tmp_path / "bench.json", undated)), "bench")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        open_results(tmp_path / "broken.json", "bench")
    with pytest.raises(UserError, match="No such file"):
        open_results(tmp_path / "nowhere.json", "bench")
    assert main(["results"]) == 2
    assert "nothing to write" in capsys.readouterr().err
    assert (
        main(["results", "--bench", write(tmp_path / "b.json", BENCH), "--readme", str(tmp_path / "R")]) == 2
    )
    assert "--readme" in capsys.readouterr().err


def test_commands_lose_the_folders_of_a_machine() -> None:
    given = "codec-slm evaluate-codec /data/kathleen --codec runs/x --output=/tmp/out --gain 4 ../y '~/a b'"
    assert (
        plain_command(given)
        == "codec-slm evaluate-codec kathleen --codec runs/x --output=out --gain 4 y 'a b'"
    )


def test_provenance() -> None:
    said = provenance("cpu", ["numpy", "no such package"])
    assert said["device"] == device_name("cpu") and said["device"] != "cpu"
    assert said["command"].startswith("codec-slm") and said["threads"] >= 1
    assert "numpy" in said["versions"] and "no such package" not in said["versions"]


@pytest.mark.usefixtures("undrawn")
def test_what_the_commands_leave_is_what_is_read(tmp_path: Path) -> None:
    codec = save_codec(tmp_path / "codec")
    capabilities = SpeechCapabilities(["aligned"], 2, False, [0.05, 0.06, 0.09])
    model = save_slm(tmp_path / "slm", codec, ["slt"], capabilities)
    (tmp_path / "sentences.txt").write_text("hello there\n")
    bench = ["bench", "--output", str(tmp_path / "b"), "--seconds", "0.5", "--rounds", "1", "--device", "cpu"]
    assert main([*bench, "--parts", "codecs", "--codecs", "hh-codec-tiny"]) == 0
    evaluate = ["evaluate-slm", "--output", str(tmp_path / "s"), "--model", str(model), "--asr", "none"]
    evaluate += ["--metrics", "[]", "--sentences", str(tmp_path / "sentences.txt"), "--device", "cpu"]
    assert main(evaluate) == 0
    (tmp_path / "corpus").mkdir()
    write_audio(tmp_path / "corpus" / "one.wav", speech_like(1, 24_000)[0], 24_000)
    evaluate = ["evaluate-codec", str(tmp_path / "corpus"), "--codec", str(codec), "--split", "train"]
    evaluate += ["--output", str(tmp_path / "c"), "--metrics", "[]", "--asr", "none", "--device", "cpu"]
    assert main([*evaluate, "--stability", "0", "--probes", "0"]) == 0
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    outputs = [f"--{name}={tmp_path / name[0]}" for name in ("bench", "slm", "codec")]
    assert main(["results", "--readme", str(readme), *outputs]) == 0
    text = readme.read_text()
    assert "1 recording (0.0 minutes) of the train split of corpus." in text
    assert "| hh-codec-tiny | bundled; 24 Hz × 1 |" in text and "`slm` reading 1 sentence." in text
