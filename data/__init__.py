"""Corpora of recorded speech, audio reading, and the token dataset."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.alignment import Aligner, AlignmentResult, align_corpus, with_alignment
    from data.audio import (
        AudioError,
        AudioInfo,
        audio_info,
        read_audio,
        read_blocks,
        read_segment,
        write_audio,
    )
    from data.corpora import Corpus, Prompt, Utterance, Word, open_corpus
    from data.mixed_segments import MixedSegments
    from data.segments import SegmentDataset
    from data.text_tokenizer import train_text_tokenizer
    from data.token_dataset import TokenDataset
    from data.tokenization import TokenizeOptions, TokenizeResult, tokenize_corpus
    from data.waveforms import FileWaveforms, MemoryWaveforms

# by module, imported when first asked for: torch and transformers take seconds that `--help` should not
_PUBLIC = {
    "data.alignment": ["Aligner", "AlignmentResult", "align_corpus", "with_alignment"],
    "data.audio": [
        "AudioError",
        "AudioInfo",
        "audio_info",
        "read_audio",
        "read_blocks",
        "read_segment",
        "write_audio",
    ],
    "data.corpora": ["Corpus", "Prompt", "Utterance", "Word", "open_corpus"],
    "data.mixed_segments": ["MixedSegments"],
    "data.segments": ["SegmentDataset"],
    "data.text_tokenizer": ["train_text_tokenizer"],
    "data.token_dataset": ["TokenDataset"],
    "data.tokenization": ["TokenizeOptions", "TokenizeResult", "tokenize_corpus"],
    "data.waveforms": ["FileWaveforms", "MemoryWaveforms"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "Aligner",
    "AlignmentResult",
    "AudioError",
    "AudioInfo",
    "Corpus",
    "FileWaveforms",
    "MemoryWaveforms",
    "MixedSegments",
    "Prompt",
    "SegmentDataset",
    "TokenDataset",
    "TokenizeOptions",
    "TokenizeResult",
    "Utterance",
    "Word",
    "align_corpus",
    "audio_info",
    "open_corpus",
    "read_audio",
    "read_blocks",
    "read_segment",
    "tokenize_corpus",
    "train_text_tokenizer",
    "with_alignment",
    "write_audio",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'data' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
