"""The part of a README that is generated, between two comments that no reader sees."""

from pathlib import Path

from codec.foundation import UserError, write_text

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def replace_results(text: str, section: str, name: str = "the README") -> str:
    """`text` with `section` between the two markers, whatever stood there.

    Raises UserError unless each marker stands there once, in their order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            f'{name}: put the line "{BEGIN}" and below it the line "{END}" where the results shall stand, each once'
        )
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}"


def update_readme(path: Path, section: str) -> bool:
    """Write the section into a README; whether that changed it.

    Raises UserError for a README that is not there or has no markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the README with --readme") from error
    updated = replace_results(text, section, str(path))
    if updated == text:
        return False
    write_text(path, updated)
    return True
