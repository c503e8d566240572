"""What a reader keeps of the files it has read, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["ByteCache"]

_Value = TypeVar("_Value")


class ByteCache(Generic[_Value]):
    """The values used last; the latest one is kept whatever its size.

    Args:
        limit: Bytes that the values may have in all.
        size_of: Tells the bytes of a value.
    """

    def __init__(self, limit: int, size_of: Callable[[_Value], int]) -> None:
        self._limit, self._size_of, self._used = limit, size_of, 0
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return a value, made when it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._used += self._size_of(value)
        self._values[key] = value
        while self._used > self._limit and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self._used -= self._size_of(oldest)
        return value
