"""Memory that the C library keeps."""

import contextlib
import ctypes


def return_free_memory() -> None:
    """Give back to the system what was freed, where the C library can (glibc).

    Tensors of many sizes leave gaps that its allocator does not fill again: hours of work take ever more.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
