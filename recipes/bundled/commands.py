"""How the scripts in this folder end when the input is bad: one line, exit code 2."""

import sys
from collections.abc import Callable

from codec.foundation import UserError


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UserError` is printed without a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
