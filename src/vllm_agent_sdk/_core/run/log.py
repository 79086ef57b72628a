"""An append-only list that is shared between versions of a state."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Log"]

T_co = TypeVar("T_co", covariant=True)


class Log(Generic[T_co]):
    """A list by reference and length: appending to the newest version costs no copy.

    Appending to an older version (a fork) copies, so no version ever sees another's items.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: list[T_co] | None = None, length: int | None = None) -> None:
        self._items: list[T_co] = items if items is not None else []
        self._length = len(self._items) if length is None else length

    @property
    def shared(self) -> list[T_co]:
        """The list that all versions share; after this one's items come those of newer ones."""
        return self._items

    def appended(self, *items: T_co) -> Log[T_co]:  # type: ignore[misc]
        """Give a log that has the items too."""
        if not items:
            return self
        if not self._length:  # an empty one may be many states' first
            return Log(list(items))
        shared = self._items if len(self._items) == self._length else self._items[: self._length]
        shared.extend(items)
        return Log(shared)

    def since(self, start: int) -> list[T_co]:
        """Give the items from a position on."""
        return self._items[start : self._length]

    def begins_with(self, other: Log[T_co]) -> bool:
        """True if it has the same items (not only equal ones) as another, and perhaps more."""
        if self._length < other._length:
            return False
        same = self._items is other._items
        return same or all(map(operator.is_, self._items, other._items[: other._length]))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._items[: self._length])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Log) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self._length)

    def __repr__(self) -> str:
        return f"Log({self._length} items)"
