"""Word times for transcripts: by forced alignment, or from TextGrid files."""

from data.alignment.align import align_corpus
from data.alignment.aligner import Aligner, Alignment, AlignmentError
from data.alignment.stored import with_alignment

__all__ = ["Aligner", "Alignment", "AlignmentError", "align_corpus", "with_alignment"]
