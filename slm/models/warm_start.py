"""Going on from a pretrained language model: it keeps its text and learns speech (TWIST, arXiv 2305.13009).

A known token keeps its row of the embedding and of the head, even if its number changes. Rows of new tokens are made
from the old ones, so that the first step sees numbers of the usual size, and known text stays as likely as it was among
text tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from codec import CodecInfo
from codec.foundation import UserError, torch_generator
from codec.foundation.errors import is_hub_id
from slm.bundled import SPEECH_FILE
from slm.models.checkpoint import find_slm, load_checkpoint
from slm.models.config import ModelConfig, StartConfig
from slm.vocabulary import Vocabulary

_PRIOR = 1.0  # frames: how much each code of a map leans on how often the old codes are used at all
# What a `model` section may say beside `start_from`: it has to agree with the model that is there.
_SHAPE = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "head_dim": "head_dim",
    "key_value_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "tie_embeddings": "tie_word_embeddings",
}


@dataclass(frozen=True)
class Start:
    """A pretrained model on this machine, and how a run starts from it."""

    config: StartConfig
    directory: Path
    vocabulary: Vocabulary | None  # of a speech language model; None for one of text

    @classmethod
    def open(cls, config: StartConfig) -> Self:
        """Find the model, downloading it if it is on the hub; raises UserError when there is none."""
        directory = find_slm(config.model)
        speaks = (directory / SPEECH_FILE).is_file()
        return cls(config, directory, Vocabulary.from_pretrained(directory) if speaks else None)

    @property
    def location(self) -> str:
        """Where others find the model: its hub id, or the directory's full path."""
        name = self.config.model
        return name if is_hub_id(name) and not Path(name).exists() else str(self.directory.resolve())

    def extended_vocabulary(
        self,
        codec: CodecInfo,
        voices: Sequence[str],
        max_quantizers: int | None = None,
        codec_location: str | None = None,
    ) -> Vocabulary:
        """The model's text tokens, and the speech tokens of a codec; arguments as in `Vocabulary.build`."""
        if self.vocabulary is None:
            return Vocabulary.build(self.directory, codec, voices, max_quantizers, codec_location)
        return self.vocabulary.for_codec(codec, voices, max_quantizers, codec_location)

    def known_voices(self) -> list[str]:
        """Voices that the model has a tag for."""
        return [] if self.vocabulary is None else list(self.vocabulary.voices)

    def speech_embeddings(self, codec: CodecInfo) -> str:
        """Where the speech tokens' rows come from: keep, codebook, mean or map.

        Raises UserError when the model's own are asked for and mean other sounds.
        """
        chosen, theirs = self.config.speech_embeddings, self.vocabulary
        speaks_it = theirs is not None and theirs.codec.fingerprint == codec.fingerprint
        if chosen == "keep" and not speaks_it:
            spoken = f"speaks {theirs.codec.fingerprint}" if theirs is not None else "speaks no codec"
            raise UserError(
                f"start_from.speech_embeddings is keep, but {self.config.model} {spoken}, and the datasets are of "
                f"{codec.name} ({codec.fingerprint}): the same codes mean other sounds; choose codebook, mean or map"
            )
        if chosen == "map" and theirs is None:
            raise UserError(
                f"start_from.speech_embeddings is map, but {self.config.model} has no speech tokens"
            )
        return chosen or ("keep" if speaks_it else "codebook")


def start_model(
    start: Start,
    shape: ModelConfig,
    vocabulary: Vocabulary,
    seed: int,
    codebooks: list[Tensor] | None = None,
    attention: str = "sdpa",
) -> PreTrainedModel:
    """The pretrained model over a run's vocabulary, in float32.

    shape: only its dropout is used; other fields that differ from their defaults must agree with the model.
    codebooks: effective codebook (entries, dim) of each quantizer, for rows that start from them.

    Raises UserError for a model that does not fit the config, and for an architecture that cannot be trained on packed
    documents.
    """
    model = load_checkpoint(start.directory, attention=attention)
    _check_shape(model, shape, start.config.model)
    sources = known_tokens(start, vocabulary)
    how = start.speech_embeddings(vocabulary.codec)
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    if layers[1] is None:
        raise UserError(
            f"{start.config.model}: a {model.config.model_type} model has no head to predict with"
        )
    former = [layer.weight.detach().clone() for layer in layers]
    former_bias = getattr(layers[1], "bias", None)
    former_bias = None if former_bias is None else former_bias.detach().clone()
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for layer, rows in zip(layers, former, strict=True):
            layer.weight.copy_(_new_rows(rows, sources, start, vocabulary, how, seed, codebooks))
        if former_bias is not None:
            known = torch.from_numpy(sources[sources >= 0])
            layers[1].bias.fill_(former_bias[known].mean())
            layers[1].bias[torch.from_numpy(sources >= 0)] = former_bias[known]
    if shape.attention_dropout:
        model.config.attention_dropout = shape.attention_dropout
        modules: list[Any] = [module for module in model.modules() if hasattr(module, "attention_dropout")]
        for module in modules:
            module.attention_dropout = shape.attention_dropout
    model.config.eos_token_id = vocabulary.eos_id
    model.config.pad_token_id = vocabulary.pad_id
    _check_reads_packed(model, start.config.model)
    return model


def known_tokens(start: Start, vocabulary: Vocabulary) -> np.ndarray:
    """Which token of the pretrained model each token is, (len(vocabulary),) int64; -1 for new ones.

    Speech tokens are known where `speech_embeddings` keeps them.
    """
    sources = np.full(len(vocabulary), -1, dtype=np.int64)
    sources[: vocabulary.num_text] = np.arange(vocabulary.num_text)
    old = start.vocabulary
    if old is None:
        return sources
    for name in ("text_id", "speech_id", "eos_id", "pad_id"):
        sources[getattr(vocabulary, name)] = getattr(old, name)
    for voice, token in vocabulary.voices.items():
        if voice in old.voices:
            sources[token] = old.voices[voice]
    reserved = min(len(vocabulary) - vocabulary.speech_end, len(old) - old.speech_end)
    sources[vocabulary.speech_end :][:reserved] = np.arange(old.speech_end, old.speech_end + reserved)
    if start.speech_embeddings(vocabulary.codec) == "keep":
        sizes = vocabulary.codec.codebook_sizes
        for offset, former, size in zip(vocabulary.speech_offsets, old.speech_offsets, sizes, strict=False):
            sources[offset : offset + size] = np.arange(former, former + size)
    return sources


def _new_rows(
    rows: Tensor,
    sources: np.ndarray,
    start: Start,
    vocabulary: Vocabulary,
    how: str,
    seed: int,
    codebooks: list[Tensor] | None,
) -> Tensor:
    """A matrix of rows (len(vocabulary), dim) from the pretrained model's (old tokens, dim)."""
    known = torch.from_numpy(sources >= 0)
    text = rows[: min(vocabulary.num_text, len(rows))]
    if len(text) < vocabulary.num_text:
        raise UserError(
            f"{start.config.model}: its tokenizer has {vocabulary.num_text} tokens, its embedding {len(rows)} rows"
        )
    result = text.mean(0).expand(len(vocabulary), -1).clone()
    result[known] = rows[torch.from_numpy(sources)[known]]
    old = start.vocabulary
    if old is not None and old.voices:
        for token in vocabulary.voices.values():
            if sources[token] < 0:
                result[token] = rows[list(old.voices.values())].mean(0)
    # What speech tokens are like: the model's own, if it has some.
    like = rows[old.speech_start : old.speech_end] if old is not None else text
    speech = slice(vocabulary.speech_start, vocabulary.speech_end)
    if how == "mean":
        result[speech] = like.mean(0)
    elif how == "codebook":
        if codebooks is None:
            raise UserError(
                "start_from.speech_embeddings is codebook, but no codec was given: set codec, or say mean"
            )
        generator = torch_generator(seed, "speech embeddings")
        for offset, codebook in zip(vocabulary.speech_offsets.tolist(), codebooks, strict=True):
            result[offset : offset + len(codebook)] = projected_codebook(codebook, like, generator)
    elif how == "map":
        assert old is not None and start.config.code_map is not None
        result[speech] = _mapped_rows(start.config.code_map, like, old, vocabulary)
    return result


def projected_codebook(codebook: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """A random projection of a codebook (entries, dim) to rows (entries, width) with the statistics of others.

    like: (rows, width); mean and deviation of the result are theirs, in each dimension. Codes that sound alike have
    rows that are alike.
    """
    entries = codebook.detach().float().cpu()
    entries = entries - entries.mean(0)
    projection = torch.randn(entries.shape[1], like.shape[1], generator=generator)
    projected = entries @ projection  # (entries, width)
    projected = (projected - projected.mean(0)) / projected.std(0).clamp_min(1e-12)
    return projected * like.std(0) + like.mean(0)


def _mapped_rows(path: str, rows: Tensor, old: Vocabulary, new: Vocabulary) -> Tensor:
    """Rows of new codes from those of the old ones that sound like them."""
    if old.num_quantizers > 1 or new.num_quantizers > 1:
        raise UserError("start_from.code_map is for codecs with one quantizer")
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a .npy file of codes ({error}); codec-slm map-codes makes one"
        ) from None
    codes, former = new.codec.codebook_sizes[0], old.codec.codebook_sizes[0]
    if table.shape == (codes,) and np.issubdtype(table.dtype, np.integer):
        if table.min() < 0 or table.max() >= former:
            raise UserError(f"{path}: codes of the former codec are 0 to {former - 1}")
        return rows[torch.from_numpy(table.astype(np.int64))]
    if table.shape == (codes, former) and np.issubdtype(table.dtype, np.floating):
        if not np.allclose(table.sum(1), 1.0, atol=1e-3) or table.min() < 0:
            raise UserError(f"{path}: each row holds shares of the old codes, which sum to 1")
        return torch.from_numpy(table.astype(np.float32)) @ rows
    raise UserError(
        f"{path}: an array {table.shape} of {table.dtype}; expected ({codes},) integers or ({codes}, {former}) shares"
    )


def _check_shape(model: PreTrainedModel, shape: ModelConfig, name: str) -> None:
    """Raise UserError for a config that describes another model than the one it starts from."""
    defaults = ModelConfig()
    for field, theirs in _SHAPE.items():
        said, found = getattr(shape, field), getattr(model.config, theirs, None)
        if said != getattr(defaults, field) and found is not None and said != found:
            raise UserError(
                f"model.{field} is {said}, but start_from.model {name} has {found}: leave it out, or start afresh"
            )
    if shape.size is not None or shape.config is not None:
        raise UserError(
            "model.size and model.config are for new models: leave them out with start_from, which brings its own"
        )


@torch.no_grad()
def _check_reads_packed(model: PreTrainedModel, name: str) -> None:
    """Raise UserError unless packed documents are read as if each were alone, and the head alone makes the logits.

    Some architectures ignore position ids; their packed documents would leak into each other.
    """
    ids = torch.arange(1, 8, device=model.device)[None] % model.config.vocab_size
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]], device=model.device)
    attention = model.config._attn_implementation
    if attention.startswith("flash") or model.device.type == "meta":
        return  # these kernels know neither the CPU nor float32
    decode: Callable[..., Any] = model.base_model
    packed = decode(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    alone = decode(input_ids=ids[:, 3:], position_ids=positions[:, 3:], use_cache=False).last_hidden_state
    spread = packed.std().item() + 1e-12
    if (packed[:, 3:] - alone).abs().max().item() > 1e-3 * spread:
        raise UserError(
            f"{name}: a {model.config.model_type} model reads packed documents as one, which would train it on "
            "sentences that nobody said; choose another architecture (Llama, Qwen, Mistral, Gemma, ...)"
        )
    head: Any = model.get_output_embeddings()
    logits = model(input_ids=ids[:, 3:], position_ids=positions[:, 3:], use_cache=False).logits
    if (head(alone) - logits).abs().max().item() > 1e-3 * (logits.std().item() + 1e-12):
        raise UserError(
            f"{name}: a {model.config.model_type} model does more to its logits than its head does (a cap, a scale), "
            "which training here does not; choose another architecture"
        )


class CodedRecordings(Protocol):
    """Recordings as codes, by id; `data.TokenDataset` is one."""

    info: CodecInfo
    name: str

    def __len__(self) -> int: ...
    def id(self, index: int, /) -> str: ...
    def codes(self, index: int, /) -> np.ndarray: ...  # (frames,) uint16


@dataclass(frozen=True)
class CodeMap:
    """Shares of the old codes for each new one, and what they were counted from."""

    shares: np.ndarray  # (new codes, old codes) float32; rows sum to 1
    recordings: int
    frames: int
    bits: float  # of information that a new code gives about the old one of its frame


def map_codes(old: CodedRecordings, new: CodedRecordings) -> CodeMap:
    """Count which old code each new code meets in the same frames of the same recordings.

    Raises UserError for codecs of different frame rates or several quantizers, and datasets without a common recording.
    """
    for dataset in (old, new):
        if dataset.info.num_quantizers > 1:
            raise UserError(f"{dataset.name}: codes are mapped between codecs with one quantizer")
    if old.info.frame_rate != new.info.frame_rate:
        raise UserError(
            f"{old.name} has {old.info.frame_rate:g} frames a second, {new.name} {new.info.frame_rate:g}: "
            "codes are mapped frame by frame"
        )
    places = {old.id(index): index for index in range(len(old))}
    codes, former = new.info.codebook_sizes[0], old.info.codebook_sizes[0]
    counts = np.zeros(codes * former, dtype=np.int64)
    recordings = 0
    for index in range(len(new)):
        place = places.get(new.id(index))
        if place is None:
            continue
        before, after = old.codes(place), new.codes(index)
        if abs(len(before) - len(after)) > 1:
            raise UserError(
                f"recording {new.id(index)} has {len(before)} frames in {old.name} and {len(after)} in {new.name}: "
                "code both datasets from the same audio"
            )
        length = min(len(before), len(after))
        pairs = after[:length].astype(np.int64) * former + before[:length]
        counts += np.bincount(pairs, minlength=len(counts))
        recordings += 1
    if not recordings:
        raise UserError(f"{old.name} and {new.name} have no recording in common (by id)")
    table = counts.reshape(codes, former).astype(np.float64)
    usual = table.sum(0) / table.sum()
    smoothed = table + _PRIOR * usual
    shares = smoothed / smoothed.sum(1, keepdims=True)
    joint = table / table.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = joint * np.log2(joint / (joint.sum(1, keepdims=True) * usual))
    return CodeMap(shares.astype(np.float32), recordings, int(table.sum()), float(np.nansum(information)))
