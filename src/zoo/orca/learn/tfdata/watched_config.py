"""A config that knows whether anybody has asked it for the rank."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

__all__ = ["WatchedConfig"]

_PLACE = ("rank", "size")


class WatchedConfig(dict[str, Any]):
    """The config of a creator function.

    Attributes:
        asked: `rank` or `size` was looked at by its name.
        copied: All of it was looked at, so the two may have been.
    """

    asked = copied = False

    def __getitem__(self, key: str) -> Any:
        self.asked = self.asked or (key in _PLACE and not self.copied)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """See `dict`."""
        self.asked = self.asked or key in _PLACE
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """See `dict`."""
        self.asked = self.asked or key in _PLACE
        return super().pop(key, *default)

    def __iter__(self) -> Iterator[str]:
        # Also what makes dict(config) and {**config} come by here.
        self.copied = True
        return super().__iter__()

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """See `dict`."""
        self.copied = True
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """See `dict`."""
        self.copied = True
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """See `dict`."""
        self.copied = True
        return super().items()

    def copy(self) -> dict[str, Any]:
        """See `dict`."""
        return dict(self)

    def __or__(self, other: Any) -> Any:
        return dict(self) | other
