"""Memory that was freed, and that the C library keeps for later."""

import contextlib
import ctypes


def give_back_memory() -> None:
    """Return to the system what was freed, of which each thread would keep a lot for itself.

    Where the C library is not glibc, this does nothing.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
