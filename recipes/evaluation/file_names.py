"""Names: of files that are made for things with names of their own, and of things that are kept in files."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from codec.foundation import UserError


def file_name(text: str) -> str:
    """A name that any file system takes; ids of sentences and recordings are the user's."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "_"


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """What files and directories are called in tables: their own names, with parents before them where two have one.

    Of a file the ending is left out where it tells nothing. Raises UserError for what is given twice.
    """
    places = [path.resolve() for path in paths]
    if twice := [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"{twice[0]} is given twice")
    parts = [[*place.parts[:-1], place.stem if place.is_file() else place.name] for place in places]
    kept = [1] * len(parts)  # how many of the parts, from the last

    def names() -> list[str]:
        return ["/".join(own[-count:]) for own, count in zip(parts, kept, strict=True)]

    while True:
        counts = Counter(names())
        short = [
            number
            for number, name in enumerate(names())
            if counts[name] > 1 and kept[number] < len(parts[number])
        ]
        if not short:
            break
        for number in short:
            kept[number] += 1
    if max(counts.values(), default=1) > 1:  # they differ in their endings alone
        return [str(path) for path in paths]
    return names()
