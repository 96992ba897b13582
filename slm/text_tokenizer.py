"""A SentencePiece model as a fast tokenizer: the same ids for the same text, without SentencePiece."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from codec.foundation import UserError

ModelProto = Any  # sentencepiece_model_pb2.ModelProto, generated without types

SPACE = "▁"  # U+2581: how SentencePiece writes a space inside a piece


def tokenizer_from_sentencepiece(path: str | Path) -> Tokenizer:
    """The fast tokenizer that gives the ids of a SentencePiece model (char, BPE or unigram).

    Raises:
        UserError: the file is no SentencePiece model, or one that cannot give text back exactly (it must be
            trained with identity normalisation, without dummy prefix or whitespace removal, with byte
            fallback).
    """
    proto = _read(Path(path))
    _check_exact(proto, path)
    kind = proto.trainer_spec.model_type
    if kind == proto.trainer_spec.UNIGRAM:
        tokenizer = Tokenizer(_unigram(proto))
        tokenizer.pre_tokenizer = _break_up_reserved(proto)
    elif kind == proto.trainer_spec.BPE:
        tokenizer = Tokenizer(_bpe(proto, merges=list(_merges(proto))))
    elif kind == proto.trainer_spec.CHAR:
        tokenizer = Tokenizer(
            _bpe(proto, merges=[])
        )  # BPE that merges nothing falls back to characters, then bytes
    else:
        raise UserError(
            f"{path}: a SentencePiece model of words cannot give text back; train char, bpe or unigram"
        )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    # A space is put back before bytes are, so that a U+2581 that came as three bytes stays what it was.
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _read(path: Path) -> ModelProto:
    proto: ModelProto = import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(
            f"{path}: not a readable SentencePiece model ({error}); make one with codec-slm train-tokenizer"
        ) from None
    if not proto.pieces:
        raise UserError(f"{path}: not a SentencePiece model; make one with codec-slm train-tokenizer")
    return proto


def _check_exact(proto: ModelProto, path: str | Path) -> None:
    normalizer, piece = proto.normalizer_spec, proto.SentencePiece
    faults = {
        "it normalises text": bool(normalizer.precompiled_charsmap),
        "it puts a space in front": normalizer.add_dummy_prefix,
        "it removes spaces": normalizer.remove_extra_whitespaces,
        "it keeps spaces as they are": not normalizer.escape_whitespaces,
        "it writes spaces as suffixes": proto.trainer_spec.treat_whitespace_as_suffix,
        "it has no byte fallback": sum(p.type == piece.BYTE for p in proto.pieces) != 256,
        "it has user-defined symbols": any(p.type == piece.USER_DEFINED for p in proto.pieces),
    }
    found = [fault for fault, present in faults.items() if present]
    if found:
        raise UserError(
            f"{path}: cannot give text back exactly ({', '.join(found)}); "
            "train it with codec-slm train-tokenizer"
        )


def _bpe(proto: ModelProto, merges: list[tuple[str, str]]) -> models.BPE:
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    return models.BPE(
        vocab=vocabulary, merges=merges, unk_token=_unknown(proto), byte_fallback=True, fuse_unk=True
    )


def _merges(proto: ModelProto) -> Iterator[tuple[str, str]]:
    """Every way to put a piece together from two others, best piece first, as SentencePiece's scores say."""
    normal = {p.piece: p.score for p in proto.pieces if p.type == proto.SentencePiece.NORMAL}
    for piece in sorted(normal, key=lambda piece: -normal[piece]):  # stable: equal scores stay in order of id
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in normal and right in normal:
                yield left, right


def _unigram(proto: ModelProto) -> models.Unigram:
    normal = proto.SentencePiece.NORMAL
    # The fast model takes unknown characters to cost 10 more than its worst piece, so what SentencePiece
    # leaves out of that minimum (control and byte pieces) must not lower it.
    worst = min(p.score for p in proto.pieces if p.type == normal)
    pieces = [(p.piece, p.score if p.type == normal else worst) for p in proto.pieces]
    return models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=True)


def _break_up_reserved(proto: ModelProto) -> pre_tokenizers.PreTokenizer:
    """Cuts text such as `<s>` or `<0x41>` after its first character.

    The fast unigram model would otherwise match the reserved pieces of that name, which to SentencePiece
    are not text.
    """
    normal, byte = proto.SentencePiece.NORMAL, proto.SentencePiece.BYTE
    names = [p.piece for p in proto.pieces if p.type not in (normal, byte)]
    alternatives = [f"{_literal(name[0])}(?={_literal(name[1:])})" for name in names]
    return pre_tokenizers.Split(Regex("|".join(["<(?=0x[0-9A-F]{2}>)", *alternatives])), "isolated")


def _literal(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _unknown(proto: ModelProto) -> str:
    return proto.pieces[proto.trainer_spec.unk_id].piece
