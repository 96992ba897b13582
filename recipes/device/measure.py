"""One measurement of `recipes.device.evidence`: `python -m recipes.device.measure NAME FILE`."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import is_flash_attn_2_available

from codec import bundled_codecs, load_codec
from codec.foundation import write_json
from data import open_corpus, read_audio
from data.tokenization import BatchEncoder
from recipes.benchmark.timing import synchronize
from recipes.benchmark.tokenization import time_tokenize
from recipes.benchmark.training import time_packed
from slm.generation.config import SamplingConfig
from slm.generation.decoders import decoder_for
from slm.generation.generate import generate
from slm.generation.grammar import Span, SpeakingRow, TokenSets
from slm.models.build import build_model
from slm.models.checkpoint import find_slm
from slm.models.config import ModelConfig
from slm.vocabulary import Vocabulary

SAMPLE_CORPUS = Path(__file__).parents[1] / "bundled" / "sample_corpus" / "manifest.jsonl"
ATTENTIONS = {"sdpa": "sdpa", "flex": "flex_attention", "flash": "flash_attention_2"}
TRAININGS = [f"training-{name}{how}" for name in ATTENTIONS for how in ("", "-compiled")]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    model: ModelConfig
    length: int  # tokens of a block
    blocks: int  # of a training step
    rows: tuple[int, ...]  # that are generated at a time
    frames: int  # that each generates
    tokenize_codec: str
    tokenize_seconds: float


def _model(layers: int, width: int) -> ModelConfig:
    return ModelConfig(layers=layers, hidden_size=width, speech_embeddings="random")


# 24 layers, 1,088 wide: 350 M weights with the vocabulary
FULL = Sizes(_model(24, 1_088), 2_048, 16, (1, 64), 240, "hh-codec-24hz", 3_600.0)
REHEARSAL = Sizes(_model(2, 128), 256, 1, (1, 2), 6, "hh-codec-tiny", 16.0)


def tokenize(sizes: Sizes, device: str) -> list[dict[str, Any]]:
    """FLAC to shards, with as many processes that read as help."""
    timing = time_tokenize(sizes.tokenize_codec, sizes.tokenize_seconds, 1, device)
    return [
        {
            "what": f"{timing.codec}, {sizes.tokenize_seconds / 60:.3g} min of FLAC",
            "× real time": timing.audio_seconds / timing.whole.median,
            "of the encoder alone": timing.share,
        }
    ]


def training(sizes: Sizes, device: str, attention: str, compiled: bool) -> list[dict[str, Any]]:
    """Tokens a second and MFU of one way to train."""
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        return []
    torch.backends.cuda.matmul.allow_tf32 = True
    timing = time_packed(
        sizes.length, sizes.blocks, 3, device, model=sizes.model, attention=attention, compile=compiled
    )
    return [
        {
            "what": f"{timing.parameters / 1e6:.0f} M, {timing.attention}{', compiled' if compiled else ''}",
            "tokens/s": timing.pace.median,
            "MFU": timing.mfu,
        }
    ]


def generation(sizes: Sizes, device: str) -> list[dict[str, Any]]:
    """Tokens a second of sampling, by rows at a time."""
    where = torch.device(device)
    vocabulary = Vocabulary.from_pretrained(find_slm("slm-tiny"))
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    model: Any = build_model(sizes.model, vocabulary, 0)
    model = model.to(where, dtype).eval()
    decoder, sets = decoder_for(model), TokenSets(vocabulary, where)
    found = []
    for count in sizes.rows:

        def run(count: int = count) -> None:
            spans = [Span(sizes.frames, sizes.frames)]
            prompt = np.array([vocabulary.eos_id])
            rows = [SpeakingRow(prompt, list(spans), vocabulary, stuck_frames=0) for _ in range(count)]
            generate(decoder, rows, sets, SamplingConfig(), seed=0)

        run()
        synchronize(where)
        started = time.perf_counter()
        run()
        synchronize(where)
        tokens = count * sizes.frames * vocabulary.num_quantizers
        rate = tokens / (time.perf_counter() - started)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        found.append({"what": f"{millions:.0f} M, {count} rows", "tokens/s": rate})
    return found


def flips(_: Sizes, device: str) -> list[dict[str, Any]]:
    """The share of codes that bfloat16 changes, of the bundled codecs on recordings."""
    recordings = [utterance.path for utterance in open_corpus(SAMPLE_CORPUS).split("train")][:20]
    found = []
    for name in bundled_codecs():
        model = load_codec(name, device)
        encoders = [BatchEncoder(model, precision) for precision in ("float32", "bfloat16")]
        changed = total = 0
        for path in recordings:
            waveform = read_audio(path, encoders[0].info.sampling_rate)[None]
            codes = [
                np.concatenate(
                    [np.ravel(row) for row in encoder.encode(waveform, [waveform.shape[1]]).streams()]
                )
                for encoder in encoders
            ]
            changed, total = changed + int((codes[0] != codes[1]).sum()), total + len(codes[0])
        found.append({"what": f"{name}, {total} codes", "changed by bfloat16": changed / total})
    return found


def main() -> None:
    """Measure one thing and write what was found: rows of a table, as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=["tokenize", "generation", "flips", *TRAININGS])
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rehearse", action="store_true")
    asked = parser.parse_args()
    sizes = REHEARSAL if asked.rehearse else FULL
    if asked.name in TRAININGS:
        _, attention, *compiled = asked.name.split("-")
        rows = training(sizes, asked.device, ATTENTIONS[attention], bool(compiled))
    else:
        rows = {"tokenize": tokenize, "generation": generation, "flips": flips}[asked.name](
            sizes, asked.device
        )
    write_json(asked.file, rows)


if __name__ == "__main__":
    main()
