"""The error that users see as one line, and the first line of any other error."""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """Something the user can mend: one line that names what was found and what to do.

    The command line prints it as `codec-slm: error: ...` without a traceback and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a message of one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_hub_id(name: str) -> bool:
    """Whether a name that is no path on this machine can be a model on the Hugging Face hub: owner/name."""
    return name.count("/") == 1 and not name.startswith((".", "/"))


def not_found(what: str, name: str, bundled: Sequence[str]) -> UserError:
    """The error for a name that is neither bundled nor on this machine, nor a hub id: with the one that is meant."""
    near = difflib.get_close_matches(name, bundled, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return UserError(
        f"no {what} {name}: expected a bundled one ({', '.join(bundled) or 'none'}), a directory or a hub id "
        f"(owner/name){guess}"
    )
