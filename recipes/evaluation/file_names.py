"""Names of files that are made for things with names of their own."""

import re


def file_name(text: str) -> str:
    """A name that any file system takes; ids of sentences and recordings are the user's."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "_"
