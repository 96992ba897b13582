"""A training document as a person reads it: what is text, what is speech, and which words and frames that is."""

from dataclasses import dataclass

import numpy as np

from slm.documents.documents import Documents
from slm.documents.formats import CONTROL, SPEECH, TEXT, Document, Span, interleaved_spans


@dataclass(frozen=True)
class DescribedDocument:
    """Several lines about a document, and what is to be heard of it."""

    text: str
    speech: list[np.ndarray]  # codes of each stretch of speech, (frames * num_quantizers,) uint16


def describe_document(documents: Documents, row: int, epoch: int = 0) -> DescribedDocument:
    """The document that a row becomes in an epoch; `row` counts over all datasets of the documents.

    Raises ValueError for a row that no document of the epoch is made of.
    """
    plan = documents.plan(epoch)
    found = np.flatnonzero(plan.rows == row)
    if not found.size:
        raise ValueError(f"no document of epoch {epoch} is made of row {row}")
    index = int(found[0])
    document = documents.build(epoch, index)
    name, drawn = (documents.format_names[kind[index]] for kind in (plan.formats, plan.drawn))
    tokens = [int((document.modality == modality).sum()) for modality in (TEXT, SPEECH, CONTROL)]
    lines = [
        f"document  {name}{f' (the row has not what {drawn} needs)' if name != drawn else ''}, seed {documents.seed}, "
        f"epoch {epoch}: {len(document)} tokens, {tokens[0]} of text, {tokens[1]} of speech, {tokens[2]} of control"
    ]
    if plan.tags[index] >= 0:
        voice = documents.table.voice_names[documents.table.voice[row]]
        lines.append(f"  voice   {voice}")
    parts = _parts(document)
    if name == "interleaved":
        spans = interleaved_spans(documents.row(epoch, index))
        lines += _span_lines(spans, documents)
    else:
        size = documents.vocabulary.num_quantizers
        for is_speech, ids in parts:
            what = f"{len(ids) // size} frames" if is_speech else repr(documents.vocabulary.decode_text(ids))
            lines.append(f"  {'speech' if is_speech else 'text':<6}  {what}")
    heard = [documents.vocabulary.ids_to_codes(ids) for is_speech, ids in parts if is_speech]
    return DescribedDocument("\n".join(lines), heard)


def _span_lines(spans: list[Span], documents: Documents) -> list[str]:
    rate = documents.vocabulary.codec.frame_rate
    words = [
        sum(len(span.text.split()) for span in spans if span.spoken == spoken) for spoken in (True, False)
    ]
    lines = [f"spans     {len(spans)}: {words[0]} words as speech, {words[1]} as text"]
    for span in spans:
        if span.spoken:
            when = (
                f"{span.begin / rate:6.2f} - {span.end / rate:6.2f} s, frames {span.begin} to {span.end - 1}"
            )
            lines.append(f"  speech  {when:<36} {span.text!r}")
        else:
            lines.append(f"  text    {f'{len(span.ids)} tokens':<36} {span.text!r}")
    return lines


def _parts(document: Document) -> list[tuple[bool, np.ndarray]]:
    """Stretches of text and speech in order: whether it is speech, and its tokens."""
    cuts = np.flatnonzero(np.diff(document.modality)) + 1
    modalities = np.split(document.modality, cuts)
    ids = np.split(document.targets, cuts)
    return [
        (bool(modality[0] == SPEECH), part)
        for modality, part in zip(modalities, ids, strict=True)
        if modality[0] != CONTROL
    ]
