"""The papers' own tables, their columns in their order, with rows for what a checkpoint reaches here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recipes.evaluation.config import Paper
from recipes.reporting.tables import Field, Table, rate, words


@dataclass(frozen=True)
class PaperColumn:
    """A column: the key of a metric in results.json, of the first so many quantizers alone where `prefix` is set."""

    title: str
    key: str
    better: Literal["higher", "lower"]
    digits: int = 2
    prefix: int | None = None


@dataclass(frozen=True)
class PaperTest:
    """One test set: which of the command's corpora, which folder of it; the paper's rows, None for what is not told."""

    name: str
    corpus: str
    folder: str
    reported: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class PaperTable:
    """What a paper reports."""

    source: str
    columns: tuple[PaperColumn, ...]
    tests: tuple[PaperTest, ...]
    metrics: tuple[str, ...]  # of evaluate-codec, beside the networks
    prefixes: tuple[int, ...] = ()


_WER, _RTF = "word_error_rate", "real_time_factor"

PAPERS: dict[Paper, PaperTable] = {
    "hh-codec": PaperTable(
        source="HH-Codec, arXiv 2507.18897",
        columns=(
            PaperColumn("UTMOS", "utmos", "higher"),
            PaperColumn("STOI", "stoi", "higher"),
            PaperColumn("V/UV F1", "voicing_f1", "higher"),
            PaperColumn("speaker similarity", "speaker_similarity", "higher"),
        ),
        tests=tuple(
            PaperTest(
                name,
                corpus,
                folder,
                {"recording": (recording, None, None, None), "HH-Codec": codec},
            )
            for name, corpus, folder, recording, codec in (
                ("LibriTTS test-clean", "libritts", "test-clean", 4.05, (3.61, 0.89, 0.90, 0.73)),
                ("LibriTTS test-other", "libritts", "test-other", 3.48, (3.21, 0.86, 0.86, 0.71)),
                ("Seed-TTS-eval", "seed_tts", "en", 3.57, (3.33, 0.85, 0.88, 0.73)),
            )
        ),
        metrics=("stoi", "voicing"),
    ),
    "hybrid-codec": PaperTable(
        source="HybridCodec, arXiv 2606.06743",
        columns=(
            PaperColumn("WER RVQ-1", _WER, "lower", prefix=1),
            PaperColumn("WER RVQ-1:12", _WER, "lower"),
            PaperColumn("SSIM", "speaker_similarity", "higher"),
            PaperColumn("UTMOS", "utmos", "higher"),
            PaperColumn("PESQ", "pesq", "higher"),
            PaperColumn("RTF", _RTF, "lower", digits=3),
        ),
        tests=(
            PaperTest(
                "LibriSpeech test-clean",
                "librispeech",
                "test-clean",
                {
                    "HybridCodec, 60,000 updates": (0.1536, 0.0446, 0.58, 3.44, 2.27, 0.014),
                    "HybridCodec, 300,000 updates": (0.1296, 0.0363, None, None, None, None),
                    "DualCodec": (0.1893, 0.0480, None, None, None, 0.042),
                    "DAC, distilled": (0.2154, 0.0439, None, None, None, 0.005),
                },
            ),
            PaperTest("SeedTTS-en", "seed_tts", "en", {"HybridCodec": (0.3037, *[None] * 5)}),
            PaperTest("Common Voice, French", "common_voice", "fr", {"HybridCodec": (1.0641, *[None] * 5)}),
        ),
        metrics=("pesq",),
        prefixes=(1,),
    ),
}


def folder_of(corpus: str, folder: str) -> Path | None:
    """Where a test set lies: below the corpus or the folder that its archive unpacks to, or the corpus by its name."""
    root = Path(corpus)
    itself = [root] if root.resolve().name == folder else []
    return next((path for path in (root / folder, *root.glob(f"*/{folder}"), *itself) if path.is_dir()), None)


def paper_table(paper: PaperTable, results: Mapping[str, Path]) -> Table:
    """The paper's rows above what was measured; results: by test set, the directory that evaluate-codec has left."""
    rows = []
    for test in paper.tests:
        for system, values in test.reported.items():
            rows.append((test.name, f"{system} (the paper)", values))
        if test.name in results:
            content = json.loads((results[test.name] / "results.json").read_text(encoding="utf-8"))
            codec = next(name for name in content["codecs"] if ":" not in name)
            for system in ("recording", codec):
                values = tuple(_measured(content, system, codec, column) for column in paper.columns)
                rows.append((test.name, f"{system} (here)", values))
    fields = [words("test set", lambda row: row[0]), words("", lambda row: row[1])]
    for place, column in enumerate(paper.columns):

        def value(row: Any, place: int = place) -> Any:
            return row[2][place]

        if column.key == _WER:
            fields.append(rate(column.title, value, column.better))
        else:
            fields.append(Field(column.title, value, column.digits, better=column.better))
    return Table.of(rows, fields)


def _measured(content: dict[str, Any], system: str, codec: str, column: PaperColumn) -> Any:
    if column.key == _RTF:
        return 1 / content["codecs"][codec]["speed"]["together"] if system == codec else None
    if column.prefix is not None and system == codec:
        system = f"{codec}:{column.prefix}"
    found = content["systems"].get(system, {}).get(column.key)
    return found["mean"] if found is not None and column.key != _WER else found
