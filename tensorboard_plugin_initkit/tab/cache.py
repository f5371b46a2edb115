"""What was computed is kept, as long as there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """Values by key, of which the least recently used are dropped first. Any thread may ask.

    One value is made at a time: whoever asks for the same one meanwhile gets it, too.

    Args:
        limit: Largest sum of the sizes of the values. A larger value is not kept.
        size: Size of a value.
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self._limit, self._size = limit, size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock, self._making = threading.Lock(), threading.RLock()

    def get(self, key: Key, make: Callable[[], Value], expected: int = 0) -> Value:
        """The value of a key; made if it is not there.

        Args:
            key: Any key.
            make: Makes the value.
            expected: Its size as far as it is known: room is made before the value is.
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

    def keep(self, wanted: Callable[[Key], bool]) -> None:
        """Drop what is of no use any more."""
        with self._lock:
            for key in [key for key in self._values if not wanted(key)]:
                del self._values[key]

    def _find(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def _shrink(self, limit: int) -> None:
        total = sum(map(self._size, self._values.values()))
        while self._values and total > limit:
            total -= self._size(self._values.popitem(last=False)[1])
