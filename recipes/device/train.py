"""Nine minutes of one big GPU: speech, a codec that learns from it, and a language model of its codes. See README.md.

    python -m recipes.device.train --speech LibriTTS --output $OUT

Every stage is a process with a time of its own. What is trained by then is exported every two minutes, and at the end.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from codec.foundation import UserError, write_json, write_text
from data import TokenDataset
from recipes.bundled.commands import run
from recipes.device.export import export_latest_codec, export_latest_slm
from recipes.device.stages import Outcome, Stage, run_stage

RECIPE = Path(__file__).parents[1] / "hh_codec" / "any_voice.yaml"
VOICES = ("slt", "rms")  # of Flite, where no speech is given
MOST_BYTES = 64 * 2**20  # of all that is exported
SENTENCES = Path(__file__).parents[1] / "bundled" / "sample_sentences.txt"  # where the speech has no texts
_PACE_STEPS = 24  # of each stage of the codec, to see how fast it is


@dataclass(frozen=True)
class Budget:
    """Seconds of the stages, and sizes."""

    speech: float  # of each voice
    pace: float
    codec: float
    tokenize: float  # of each corpus; also to collect texts, and to train a model of them
    slm: float
    export_every: float
    sentences: int
    batch: float  # times the recipe's batch size
    slm_layers: int
    slm_width: int
    blocks: int  # of 2,048 tokens in an update of the language model
    codec_overrides: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Of all stages together, at most."""
        short = len(VOICES) * self.speech + (len(VOICES) + 2) * self.tokenize
        return short + self.pace + self.codec + self.slm


FULL = Budget(45, 45, 180, 15, 130, 120, 6_000, 4, 6, 384, 16, {})
_NARROW = {
    "encoder": {"frame_dim": 32, "mel_dim": 32},
    "decoder": {"dim": 32},
    "vocoder": {"hidden_dim": 64, "dim": 32},
}
REHEARSAL = Budget(240, 240, 240, 240, 240, 15, 40, 0.2, 2, 64, 1, _NARROW)


def codec_recipe(
    budget: Budget, corpora: Sequence[Path], output: Path, steps: Sequence[int]
) -> dict[str, Any]:
    """The recipe of any voice without its recogniser, for so many steps a stage."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    del recipe["recogniser"]
    for stage, count in zip(recipe["stages"], steps, strict=True):
        stage["losses"].pop("recogniser", None)
        stage["steps"] = count
        stage["batch_size"] = max(1, round(stage["batch_size"] * budget.batch))
        stage["schedule"]["warmup_steps"] = min(stage["schedule"]["warmup_steps"], count // 10)
    for part, fields in budget.codec_overrides.items():
        recipe["model_overrides"][part] |= fields
    changed = {
        "output": str(output),
        "corpora": [{"path": str(path), "validation_limit": 8} for path in corpora],
    }
    return recipe | changed | {"log_every": 4, "evaluate_every": 10**6, "checkpoint_every": 100}


def paced_steps(log: Sequence[dict[str, Any]], recipe: dict[str, Any], seconds: float) -> list[int]:
    """Steps of the recipe's stages that fill `seconds`, in the shares of the recipe, at the pace of the last log lines.

    A stage that the log does not know goes as fast as the slowest that it knows.
    """
    whole = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["stages"]
    cost: dict[int, float] = {}  # seconds a step
    for line in log:
        if "audio_seconds_per_second" in line:
            stage = recipe["stages"][line["stage"]]
            audio = stage["batch_size"] * stage["segment_seconds"]
            cost[line["stage"]] = audio / line["audio_seconds_per_second"]
    slowest = max(cost.values())
    needed = sum(stage["steps"] * cost.get(number, slowest) for number, stage in enumerate(whole))
    return [max(1, int(stage["steps"] * seconds / needed)) for stage in whole]


def slm_settings(
    budget: Budget, tokens: Sequence[Path], has_text: bool, text_model: Path, output: Path, seconds: float
) -> dict[str, Any]:
    """The training run of the language model."""
    return {
        "datasets": [{"path": str(path)} for path in tokens],
        "text_model": str(text_model),
        "output": str(output),
        "voices": [],
        "model": {
            "layers": budget.slm_layers, "hidden_size": budget.slm_width, "max_positions": 2_048,
            "speech_embeddings": "random",
        },
        "documents": {"formats": {"speech": 0.3, "tts": 0.7} if has_text else {"speech": 1.0}},
        "batch": {"length": 2_048, "blocks": budget.blocks, "blocks_per_forward": budget.blocks},
        "optimizer": {"learning_rate": 2.0e-3},
        "schedule": {"kind": "warmup-stable-decay", "warmup_steps": 50, "decay_fraction": 0.3},
        "max_seconds": seconds,
        "validate_every": 500, "validation_blocks": 8, "checkpoint_every": 100, "samples": {"count": 0},
    }  # fmt: skip


class Exporter:
    """Exports what a run has, now and then; what cannot be exported yet is told, and tried again."""

    def __init__(self, every: float) -> None:
        self.every, self.last = every, time.monotonic()

    def now_and_then(self, export: Callable[[], Path]) -> None:
        """Export if it is time to."""
        if time.monotonic() - self.last >= self.every:
            self.now(export)

    def now(self, export: Callable[[], Path]) -> None:
        """Export."""
        self.last = time.monotonic()
        try:
            print(f"exported {export()}", flush=True)
        except Exception as error:  # what trains meanwhile goes on, whatever is wrong here
            print(f"nothing exported: {error}", flush=True)


class Session:
    """The stages, one after the other. `output` is what is delivered; runs and tokens are in a temporary folder."""

    def __init__(self, output: Path, budget: Budget, device: str) -> None:
        self.output, self.budget, self.device = output, budget, device
        self.work = Path(tempfile.mkdtemp(prefix="train-"))
        self.outcomes: list[Outcome] = []
        self.exporter = Exporter(budget.export_every)

    def run(
        self, name: str, seconds: float, *command: object, export: Callable[[], Path] | None = None
    ) -> Outcome:
        """One stage, with exports on the way and at its end."""
        stage = Stage(name, seconds, [str(part) for part in command])
        watch = None if export is None else (lambda: self.exporter.now_and_then(export))
        environment = {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else None
        self.outcomes.append(run_stage(stage, self.output / "logs", environment, watch))
        if export is not None:
            self.exporter.now(export)
        write_json(self.output / "stages.json", [asdict(one) for one in self.outcomes])
        return self.outcomes[-1]

    def speech(self) -> list[Path]:
        """Speech of Flite's voices; what is made when the time is up counts."""
        texts = self.work / "texts.jsonl"
        count = self.budget.sentences
        kinds = (f"--{kind}={many}" for kind, many in {"everyday": count, "novels": 0, "bible": 0}.items())
        self.run("texts", self.budget.tokenize, "recipes.bundled.texts", texts, *kinds)
        for place, voice in enumerate(VOICES):
            start = place * count // len(VOICES)
            folder = self.work / f"speech-{voice}"
            made = ["--voice", voice, "--start", start, "--processes", os.cpu_count(), "--validation", 8]
            hours = count / len(VOICES) * 2.5 / 3_600  # 2.5 s a sentence
            self.run(f"speech-{voice}", self.budget.speech, "recipes.bundled.synthesize", texts, folder, *made,
                     "--hours", hours)  # fmt: skip
        return [
            path for voice in VOICES if (path := self.work / f"speech-{voice}" / "manifest.jsonl").is_file()
        ]

    def codec(self, corpora: list[Path]) -> str:
        """A codec, trained as long as there is time for; where it is. Nothing trained: the bundled one."""
        budget, models = self.budget, self.output / "models"
        pace, run = self.work / "pace", self.work / "codec"
        few, seconds = (4, 5.0) if self.device == "cpu" else (_PACE_STEPS, 0.7 * budget.codec)
        short = codec_recipe(budget, corpora, pace, [few] * 3)
        self._train("pace", budget.pace, "train-codec", short)
        if (pace / "log.jsonl").is_file():
            log = [json.loads(line) for line in (pace / "log.jsonl").read_text(encoding="utf-8").splitlines()]
            steps = paced_steps(log, short, seconds)
            print(f"steps of the codec: {steps}", flush=True)
            self._train("codec", budget.codec, "train-codec", codec_recipe(budget, corpora, run, steps),
                        lambda: export_latest_codec(run, models))  # fmt: skip
        return str(models / "codec") if (models / "codec").is_dir() else "hh-codec-tiny"

    def language_model(self, corpora: list[Path], codec: str) -> None:
        """A language model of the codec's codes."""
        budget, run, tokens = self.budget, self.work / "slm", []
        for number, corpus in enumerate(corpora):
            folder = self.work / f"tokens-{number}"
            outcome = self.run(f"tokens-{number}", budget.tokenize, "recipes", "tokenize", corpus, "--output", folder,
                               "--codec", codec, "--device", self.device)  # fmt: skip
            tokens += [folder] if outcome.ended == "done" else []
        if not tokens:
            raise UserError("no speech could be tokenized: see logs/")
        has_text = all(TokenDataset.open(folder).text(0) for folder in tokens)
        texts, text_model = tokens[0] if has_text else SENTENCES, self.work / "text.model"
        self.run("text-model", budget.tokenize, "recipes", "train-tokenizer", texts,
                 "--output", text_model)  # fmt: skip
        seconds = 5.0 if self.device == "cpu" else 0.7 * budget.slm  # the rest is for its start and its end
        self._train("slm", budget.slm, "train-slm", slm_settings(budget, tokens, has_text, text_model, run, seconds),
                    lambda: export_latest_slm(run, self.output / "models"))  # fmt: skip

    def _train(
        self, name: str, seconds: float, command: str, settings: dict[str, Any],
        export: Callable[[], Path] | None = None,
    ) -> None:  # fmt: skip
        file = self.work / f"{name}.yaml"
        write_text(file, yaml.safe_dump(settings))
        self.run(name, seconds, "recipes", command, "--config", file, export=export)


def main() -> None:
    """Train, and export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--speech", type=Path, nargs="+", help="corpora, as codec-slm tokenize reads them; unset: synthesised"
    )
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "out")) / "train")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, about two minutes of a CPU")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not asked.rehearse else "cpu"
    session = Session(asked.output.resolve(), REHEARSAL if asked.rehearse else FULL, device)
    corpora = [path.resolve() for path in asked.speech or session.speech()]
    session.language_model(corpora, session.codec(corpora))
    size = sum(file.stat().st_size for file in (session.output / "models").rglob("*") if file.is_file())
    print(f"{session.output / 'models'}: {size / 2**20:.1f} MiB")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 2**20:g} MiB")


if __name__ == "__main__":
    run(main)
