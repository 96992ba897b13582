"""Documents: the training sequences of text and speech tokens."""

from slm.documents.config import DocumentConfig
from slm.documents.document import CONTROL, SPEECH, TEXT, Document, DocumentWriter
from slm.documents.documents import DocumentCounts, Documents, EpochPlan
from slm.documents.formats import FORMATS, Format, Row, RowSizes, register
from slm.documents.interleaved import Span, interleaved_spans
from slm.documents.rows import Source, TokenRows
from slm.documents.spans import InterleavedConfig
from slm.documents.text_rows import TextRows

__all__ = [
    "CONTROL",
    "FORMATS",
    "SPEECH",
    "TEXT",
    "Document",
    "DocumentConfig",
    "DocumentCounts",
    "DocumentWriter",
    "Documents",
    "EpochPlan",
    "Format",
    "InterleavedConfig",
    "Row",
    "RowSizes",
    "Source",
    "Span",
    "TextRows",
    "TokenRows",
    "interleaved_spans",
    "register",
]
