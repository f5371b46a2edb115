"""A cache limited by the size of its values."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """Values by key; the least recently used are dropped first. Any thread may ask.

    One value is made at a time: other threads wait for it, and get the same one.

    Args:
        limit: Largest sum of the sizes of the values. A larger value is not kept.
        size: Size of a value.
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self._limit, self._size = limit, size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock, self._making = threading.Lock(), threading.RLock()

    def get(self, key: Key, make: Callable[[], Value], expected: int = 0) -> Value:
        """Return the value of a key; make it if it is missing.

        Args:
            key: Any key.
            make: Makes the value.
            expected: Its size, if known: others are dropped before the value is made.
        """
        found = self._find(key)
        if found is None:
            with self._making:
                found = self._find(key)
                if found is None:
                    with self._lock:
                        self._shrink(self._limit - expected)
                    found = make()
                    with self._lock:
                        self._values[key] = found
                        self._shrink(self._limit)
        return found

    def keep(self, wanted: Callable[[Key], bool]) -> list[Value]:
        """Drop the values of all other keys; return those that are left."""
        with self._lock:
            for key in [key for key in self._values if not wanted(key)]:
                del self._values[key]
            return list(self._values.values())

    def _find(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def _shrink(self, limit: int) -> None:
        total = sum(map(self._size, self._values.values()))
        while self._values and total > limit:
            total -= self._size(self._values.popitem(last=False)[1])
