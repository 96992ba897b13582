"""The one error that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: one line that names what was found and what to do.

    The command line prints it as `codec-slm: error: ...` without a traceback and exits with status 2.
    """
