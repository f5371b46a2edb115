"""Memory that was freed in Python, but is still held by the C library."""

import contextlib
import ctypes


def give_back_memory() -> None:
    """Return freed memory to the system; each thread would keep a lot for itself.

    Where the C library is not glibc, this does nothing.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
