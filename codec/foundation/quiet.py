"""Loading with `transformers` without its progress bars and warnings."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Within the context `transformers` shows no progress bars: it draws them even for what takes milliseconds."""
    showing = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if showing:
            logging.enable_progress_bar()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the context `transformers` shows neither progress bars nor warnings.

    For loading whose outcome is checked: it prints tables of what our own errors say in a line.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with without_progress_bars():
            yield
    finally:
        logging.set_verbosity(verbosity)
