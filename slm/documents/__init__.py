"""Documents: the training sequences of text and speech tokens."""

from slm.documents.config import DocumentConfig
from slm.documents.document import CONTROL, SPEECH, TEXT, Document, DocumentWriter
from slm.documents.documents import DocumentCounts, Documents, EpochPlan
from slm.documents.formats import FORMATS, Format, Row, RowSizes, register
from slm.documents.rows import Source, TokenRows

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
    "Row",
    "RowSizes",
    "Source",
    "TokenRows",
    "register",
]
