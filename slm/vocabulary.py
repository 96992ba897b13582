"""One vocabulary for text and speech, and the arithmetic between codes and token ids.

Token ids, in order: text (as the text tokenizer numbers it), `<|text|> <|speech|> <|eos|> <|pad|>`, voice
tags `<|voice:NAME|>`, speech tokens `<|s0|> …` (quantizer q > 0: `<|q1_s0|> …`), and `<|reserved_0|> …` up
to a multiple of 128, so that `len(vocabulary)` is the number of rows of the model's embedding.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Encoding, Tokenizer
from transformers import AutoTokenizer

from codec import CodecInfo
from codec.foundation import UserError, first_line, write_json
from slm.bundled import SPEECH_FILE
from slm.text_tokenizer import SPACE, tokenizer_from_sentencepiece

CONTROL_TOKENS = ("<|text|>", "<|speech|>", "<|eos|>", "<|pad|>")
MULTIPLE = 128
TOKENIZER_FILE = "tokenizer.json"
_FORMAT_VERSION = 1
_PIECE = re.compile(r"\s*\S+(?:\s+\Z)?")  # a word with the white space before it


class Vocabulary:
    """Text tokens, control tokens, voice tags and speech tokens of one language model.

    Attributes:
        codec: the codec whose codes the speech tokens are.
        codec_location: where to load that codec from: a directory, a hub id or the name of a bundled one.
        num_quantizers: how many of the codec's quantizers have tokens: the first ones.
        num_text: text tokens are `0 … num_text - 1`.
        text_id, speech_id, eos_id, pad_id: the control tokens.
        voices: voice name -> token id.
        voice_vectors: voice name -> its vector (voice_dim numbers), where the codec has voice vectors.
        speech_offsets: (num_quantizers,) int64, the token id of code 0 of each quantizer.
        speech_start, speech_end: half-open range of all speech token ids.
    """

    def __init__(self, tokenizer: Tokenizer, speech: dict):
        """`tokenizer`: with all tokens added; `speech`: what `speech.json` holds."""
        self.codec = CodecInfo.from_dict(speech["codec"])
        self.codec_location: str = speech["codec_location"]
        self.num_quantizers: int = speech["num_quantizers"]
        self.num_text: int = speech["num_text"]
        self.text_id, self.speech_id, self.eos_id, self.pad_id = (
            speech["control"][t] for t in CONTROL_TOKENS
        )
        self.voices: dict[str, int] = dict(speech["voices"])
        self.voice_vectors: dict[str, list[float]] = dict(speech.get("voice_vectors", {}))
        self.speech_offsets = np.array(speech["speech_offsets"], dtype=np.int64)
        self.speech_start = int(self.speech_offsets[0])
        self.speech_end = self.speech_start + sum(self.codec.codebook_sizes[: self.num_quantizers])
        self._speech = speech
        self._tokenizer = tokenizer
        # What a user writes is text, even if it spells a special token. The saved tokenizer, in the hands
        # of a client of its own, reads `<|eos|>` as the token; this object never does.
        self._tokenizer.encode_special_tokens = True
        # SentencePiece writes spaces as U+2581 and so cannot tell the two apart: ours goes through its bytes.
        self._space_ids: list[int] | None = None
        if self.is_sentencepiece:
            ids = tokenizer.get_vocab()
            self._space_ids = [ids[f"<0x{byte:02X}>"] for byte in SPACE.encode()]

    def __reduce__(self) -> tuple[type["Vocabulary"], tuple[Tokenizer, dict]]:
        speech = {**self._speech, "voice_vectors": self.voice_vectors}
        return Vocabulary, (self._tokenizer, speech)  # a pickled Tokenizer forgets how it encodes

    @classmethod
    def build(
        cls,
        text_model: str | Path,
        codec: CodecInfo,
        voices: Sequence[str] = (),
        max_quantizers: int | None = None,
        codec_location: str | None = None,
    ) -> "Vocabulary":
        """A vocabulary on top of a text tokenizer.

        Args:
            text_model: a SentencePiece `.model` file (`codec-slm train-tokenizer` makes one), or a
                pretrained fast tokenizer of `transformers` (directory or hub id), which is extended.
            codec: the codec whose codes become tokens.
            voices: names that get a tag, `<|voice:NAME|>`.
            max_quantizers: give tokens to the first quantizers only; all unless set.
            codec_location: where the codec can be loaded from; its name unless set.

        Raises:
            UserError: no usable text tokenizer, or names that cannot be tokens.
        """
        path = Path(text_model)
        bos: str | None = None
        if is_sentencepiece := path.suffix == ".model" or path.is_file():
            tokenizer = tokenizer_from_sentencepiece(path)
        else:
            tokenizer, bos = _pretrained_tokenizer(str(text_model))
        kind = "sentencepiece" if is_sentencepiece else "pretrained"
        return cls._assemble(
            tokenizer, kind, str(text_model), codec, voices, max_quantizers, codec_location or codec.name, bos
        )

    def for_codec(
        self,
        codec: CodecInfo,
        voices: Sequence[str] = (),
        max_quantizers: int | None = None,
        codec_location: str | None = None,
    ) -> "Vocabulary":
        """A vocabulary with these text tokens for another codec or other voices; arguments as in `build`.

        Text and control tokens keep their ids. With as many voices and codes all others do too.
        """
        content = json.loads(self._tokenizer.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < self.num_text]
        return self._assemble(
            Tokenizer.from_str(json.dumps(content)),
            self._speech["text_model"],
            "the tokenizer",
            codec,
            voices,
            max_quantizers,
            codec_location or codec.name,
            self._speech.get("bos_token"),
        )

    @classmethod
    def _assemble(
        cls,
        tokenizer: Tokenizer,
        kind: str,
        name: str,
        codec: CodecInfo,
        voices: Sequence[str],
        max_quantizers: int | None,
        codec_location: str,
        bos: str | None,
    ) -> "Vocabulary":
        """Add everything but text to a text tokenizer."""
        num_text = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        num_quantizers = min(max_quantizers or codec.num_quantizers, codec.num_quantizers)
        sizes = codec.codebook_sizes[:num_quantizers]
        _check_voices(voices)

        tags = [f"<|voice:{name}|>" for name in voices]
        tokens = [*CONTROL_TOKENS, *tags, *(f"<|s{code}|>" for code in range(sizes[0]))]
        for quantizer, size in enumerate(sizes[1:], start=1):
            tokens.extend(f"<|q{quantizer}_s{code}|>" for code in range(size))
        reserved = -(num_text + len(tokens)) % MULTIPLE
        tokens.extend(f"<|reserved_{k}|>" for k in range(reserved))
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
        if taken := [t for i, t in enumerate(tokens) if tokenizer.token_to_id(t) != num_text + i]:
            raise UserError(
                f"{name}: already has the token {taken[0]}; to go on from a speech language model, "
                "give its checkpoint as start_from.model"
            )

        first_speech = num_text + len(CONTROL_TOKENS) + len(tags)
        speech = {
            "format_version": _FORMAT_VERSION,
            "codec": codec.to_dict(),
            "codec_location": codec_location,
            "frame_rate": codec.frame_rate,
            "num_quantizers": num_quantizers,
            "text_model": kind,
            "num_text": num_text,
            "control": {token: num_text + i for i, token in enumerate(CONTROL_TOKENS)},
            "voices": {name: num_text + len(CONTROL_TOKENS) + i for i, name in enumerate(voices)},
            "speech_offsets": list(accumulate(sizes[:-1], initial=first_speech)),
            "size": num_text + len(tokens),
        }
        if bos is not None:
            speech["bos_token"] = bos
        return cls(tokenizer, speech)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "Vocabulary":
        """Reads what `save_pretrained` wrote; raises UserError when the directory holds no such thing."""
        directory = Path(directory)
        try:
            speech = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8"))
            tokenizer = Tokenizer.from_str((directory / TOKENIZER_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"{directory}: not a speech language model, {Path(error.filename).name} is missing"
            ) from None
        except Exception as error:  # tokenizers raises bare Exceptions for what it cannot read
            raise UserError(f"{directory}: its tokenizer cannot be read ({error})") from None
        if speech.get("format_version") != _FORMAT_VERSION:
            raise UserError(
                f"{directory / SPEECH_FILE}: format {speech.get('format_version')}, this version reads "
                f"{_FORMAT_VERSION}"
            )
        if tokenizer.get_vocab_size(with_added_tokens=True) != speech["size"]:
            raise UserError(f"{directory}: {TOKENIZER_FILE} and {SPEECH_FILE} are not of the same model")
        return cls(tokenizer, speech)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` and `speech.json` into a model's directory.

        `transformers` 4.57 and 5 load the tokenizer from it with `AutoTokenizer`, and so do clients that
        know neither this project nor version 5 (which would write a `tokenizer_class` of its own).
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(directory / TOKENIZER_FILE))
        write_json(
            directory / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **({"bos_token": self._speech["bos_token"]} if "bos_token" in self._speech else {}),
                "eos_token": "<|eos|>",
                "pad_token": "<|pad|>",
                # llama.cpp would otherwise put both in front of every text.
                "add_bos_token": False,
                "add_prefix_space": False,
                # What `generate` takes: the models know no token types.
                "model_input_names": ["input_ids", "attention_mask"],
                "clean_up_tokenization_spaces": False,
                "model_max_length": int(1e30),
            },
        )
        vectors = {"voice_vectors": self.voice_vectors} if self.voice_vectors else {}
        write_json(directory / SPEECH_FILE, {**self._speech, **vectors})

    def __len__(self) -> int:
        """Number of tokens, a multiple of 128: the rows of the model's embedding."""
        return self._speech["size"]

    @property
    def is_sentencepiece(self) -> bool:
        """Whether the text tokens are those of a SentencePiece model."""
        return self._speech["text_model"] == "sentencepiece"

    @property
    def bos_id(self) -> int | None:
        """The token that the pretrained text model begins texts with, if it has one; documents do without it."""
        bos = self._speech.get("bos_token")
        return None if bos is None else self._tokenizer.token_to_id(bos)

    def voice_id(self, name: str | None) -> int | None:
        """The tag of a voice, or None for a voice that has none."""
        return self.voices.get(name) if name is not None else None

    def voice_vector(self, name: str | None) -> np.ndarray | None:
        """What the codec needs to speak in a voice, (voice_dim,) float32; None where that is not known."""
        vector = self.voice_vectors.get(name) if name is not None else None
        return None if vector is None else np.array(vector, dtype=np.float32)

    # Text

    def encode_text(self, text: str) -> np.ndarray:
        """Token ids of a text, (tokens,) int32; whatever it contains is text, special tokens too."""
        if self._space_ids is None or SPACE not in text:
            return np.array(self._encode(text).ids, dtype=np.int32)
        parts = [self.encode_text(part) for part in text.split(SPACE)]
        space = np.array(self._space_ids, dtype=np.int32)
        return np.concatenate([parts[0], *(ids for part in parts[1:] for ids in (space, part))])

    def knows(self, character: str) -> bool:
        """Whether a character has a token. Of a SentencePiece model, bytes stand for what it has never seen."""
        if self._space_ids is None:
            return True
        return all(not token.startswith("<0x") for token in self._encode(character).tokens)

    def encode_words(self, text: str) -> list[np.ndarray]:
        """The ids of `encode_text`, one (tokens,) int32 array for each piece of `split_words(text)`."""
        ids, starts = self.encode_text_and_words(text)
        return np.split(ids, starts[1:]) if len(starts) else []

    def encode_text_and_words(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of `encode_text`, and where in them each piece of `split_words` starts, (pieces,) int64.

        A token that reaches over a cut belongs to the piece in which it starts.
        """
        tokens = self.encode_texts_and_words([text])
        return tokens.ids, tokens.piece

    def encode_texts_and_words(self, texts: Sequence[str]) -> "WordTokens":
        """`encode_text_and_words` of many texts at once, on all cores."""
        split = [split_words(text) for text in texts]
        pieces = list(chain.from_iterable(split))
        if self._space_ids is not None:  # every byte of a text is in a token
            encoded = self.encode_texts(texts)
            counts = [len(of_text) for of_text in encoded]
            ids = np.concatenate(encoded)
            tokens = self.text_bytes[ids]
            before = tokens.cumsum() - tokens
            sizes = [len(piece) if piece.isascii() else len(piece.encode()) for piece in pieces]
        else:
            encodings = self._encode_batch(texts, with_offsets=True)
            counts = [len(encoding) for encoding in encodings]
            ids = np.array([number for encoding in encodings for number in encoding.ids], dtype=np.int32)
            offsets = chain.from_iterable(encoding.offsets for encoding in encodings)
            before = np.array([start for start, _ in offsets], dtype=np.int64)
            sizes = [len(piece) for piece in pieces]
        starts, piece_starts = (np.array([0, *accumulate(each)]) for each in (counts, map(len, split)))
        ends = np.array([0, *accumulate(sizes)])
        if self._space_ids is None:  # their offsets are those in one text
            before += np.repeat(ends[piece_starts[:-1]], np.diff(starts))
        return WordTokens(ids, starts, np.searchsorted(before, ends[:-1]), piece_starts)

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode_text` of many texts at once, on all cores."""
        encodings = self._encode_batch(texts)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        if self._space_ids is not None:
            for index, text in enumerate(texts):
                if SPACE in text:
                    ids[index] = self.encode_text(text)
        return ids

    @cached_property
    def text_hash(self) -> str:
        """16 hex digits that name how text becomes tokens; the same whatever voices and codes there are."""
        content = json.loads(self._tokenizer.to_str())
        content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < self.num_text]
        text = json.dumps([content, self._speech["text_model"]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def count_text(self, texts: Sequence[str]) -> np.ndarray:
        """Lengths of `encode_text` of many texts, (texts,) int32, without making the ids."""
        encodings = self._encode_batch(texts)
        counts = np.array([len(encoding) for encoding in encodings], dtype=np.int32)
        if self._space_ids is not None:
            for index, text in enumerate(texts):
                if SPACE in text:
                    counts[index] = len(self.encode_text(text))
        return counts

    def decode_text(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids. Ids of other tokens are skipped."""
        return self._tokenizer.decode([i for i in np.asarray(ids).tolist() if i < self.num_text])

    @cached_property
    def text_bytes(self) -> np.ndarray:
        """UTF-8 bytes of each token, (len(self),) int32, 0 for what is no text: for bits per byte."""
        by_bytes = self._space_ids is None and "ByteLevel" in json.dumps(
            json.loads(self._tokenizer.to_str())["decoder"]
        )
        counts = np.zeros(len(self), dtype=np.int32)
        special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        for token, index in self._tokenizer.get_vocab(with_added_tokens=True).items():
            if index >= self.num_text or index in special:
                continue
            if by_bytes:  # one character a byte
                counts[index] = len(token)
            elif len(token) == 6 and token.startswith("<0x"):
                counts[index] = 1
            else:
                counts[index] = len(token.replace(SPACE, " ").encode())
        return counts

    def _encode(self, text: str) -> Encoding:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            raise UserError(f"not valid Unicode text: {text!r}") from None

    def _encode_batch(self, texts: Sequence[str], with_offsets: bool = False) -> list[Encoding]:
        encode = self._tokenizer.encode_batch if with_offsets else self._tokenizer.encode_batch_fast
        try:
            return encode(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            return [self._encode(text) for text in texts]  # which says what text it is

    # Speech

    def codes_to_ids(self, stream: np.ndarray, num_quantizers: int | None = None) -> np.ndarray:
        """Token ids of a stream of codes.

        Args:
            stream: (frames * num_quantizers,) uint16, frame-major.
            num_quantizers: codes a frame in the stream; the codec's unless set. Quantizers without tokens
                are left out (`max_quantizers`).

        Returns:
            (frames * self.num_quantizers,) int32.
        """
        if (num_quantizers or self.codec.num_quantizers) == 1:
            return np.add(stream, self.speech_start, dtype=np.int32, casting="unsafe")
        codes = np.asarray(stream).reshape(-1, num_quantizers or self.codec.num_quantizers)[
            :, : self.num_quantizers
        ]
        return (codes + self.speech_offsets[: codes.shape[1]]).astype(np.int32).reshape(-1)

    def ids_to_codes(self, ids: np.ndarray) -> np.ndarray:
        """Codes of speech token ids, (tokens,) uint16: a stream of `self.num_quantizers` codes a frame.

        Raises:
            ValueError: an id that is no speech token.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and (ids.min() < self.speech_start or ids.max() >= self.speech_end):
            raise ValueError(
                f"not all of these are speech tokens ({self.speech_start} to {self.speech_end - 1})"
            )
        quantizers = np.searchsorted(self.speech_offsets, ids, side="right") - 1
        return (ids - self.speech_offsets[quantizers]).astype(np.uint16)


def _pretrained_tokenizer(name: str) -> tuple[Tokenizer, str | None]:
    """The fast tokenizer, and its BOS token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"{name}: neither a SentencePiece .model file nor a tokenizer to load ({reason})"
        ) from None
    if not tokenizer.is_fast:
        raise UserError(f"{name}: only fast tokenizers (tokenizer.json) can be extended")
    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), tokenizer.bos_token


def _check_voices(voices: Sequence[str]) -> None:
    if isinstance(voices, str) or len(set(voices)) != len(voices):
        raise UserError("voices must be a list of different names")
    for name in voices:
        if not name or "|>" in name:
            raise UserError(f"{name!r} cannot be the name of a voice")


@dataclass(frozen=True)
class WordTokens:
    """The tokens of texts, and where the pieces of `split_words` start in them, text after text."""

    ids: np.ndarray  # (tokens,) int32
    starts: np.ndarray  # (texts + 1,) int64, where each text's tokens begin
    piece: np.ndarray  # (pieces,) int64, the first token of each piece, counted over all texts
    piece_starts: np.ndarray  # (texts + 1,) int64, where each text's pieces begin


def split_words(text: str) -> list[str]:
    """Cuts a text before the white space of every word. The pieces join to the text exactly.

    A piece is a word with its punctuation and the white space before it, as in `["Well,", " I", " see."]`. White space
    at the end of the text stays with the last word. A text of white space alone is one piece; an empty text has none.
    """
    if not text or text.isspace():
        return [text] if text else []
    return _PIECE.findall(text)
