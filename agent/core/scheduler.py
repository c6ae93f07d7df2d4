"""Whose turn it is on one hop: round-robin by bytes among the streams of a class.

Source:
    Shreedhar and Varghese, "Efficient fair queuing using deficit round-robin", 1996.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

QUANTUM_BYTES = 64 * 1024
"""Bytes of one turn: a whole train."""

Key = TypeVar("Key", bound=Hashable)


class RoundRobin(Generic[Key]):
    """Keys that take turns; each turn is worth the same number of bytes.

    A turn may be overdrawn by its last packet; the following turns of that key are shorter by as much. A key that
    leaves loses what it had left or owed.

    Args:
        quantum_bytes: Bytes of one turn, at least 1.
    """

    __slots__ = ("_left", "_quantum")

    def __init__(self, quantum_bytes: int = QUANTUM_BYTES) -> None:
        self._quantum = quantum_bytes
        # Bytes left in each key's turn, in the order of turns; the first key's turn is now.
        self._left: OrderedDict[Key, int] = OrderedDict()

    def add(self, key: Key) -> None:
        """Let a key take turns, as the last in line; nothing if it already does."""
        if key not in self._left:
            self._left[key] = self._quantum

    def remove(self, key: Key) -> None:
        """Take a key out; nothing if it is not in."""
        self._left.pop(key, None)

    def next_key(self) -> Key | None:
        """Return whose turn it is, None if there is nobody."""
        turns = self._left
        while turns:
            key = next(iter(turns))
            if turns[key] > 0:
                return key
            # Its turn was used up, or overdrawn by more than one turn: to the end of the line with one turn more.
            turns[key] += self._quantum
            turns.move_to_end(key)
        return None

    def left(self, key: Key) -> int:
        """Return the bytes left in a key's turn."""
        return self._left[key]

    def spend(self, key: Key, size_bytes: int) -> None:
        """Charge a key for what it sent, whether or not it was its turn; nothing if it has left."""
        if key in self._left:
            self._left[key] -= size_bytes

    def __bool__(self) -> bool:
        """Tell whether there is any key."""
        return bool(self._left)

    def __contains__(self, key: Key) -> bool:
        """Tell whether a key takes turns."""
        return key in self._left

    def __len__(self) -> int:
        """Return how many keys take turns."""
        return len(self._left)
