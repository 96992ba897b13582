"""The error that users see as one line, and the first line of any other error."""


class UserError(Exception):
    """Something the user can mend: one line that names what was found and what to do.

    The command line prints it as `codec-slm: error: ...` without a traceback and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a message of one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
