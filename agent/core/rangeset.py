"""Sets of numbers that are kept as ranges.

Theory of operation. All ranges are half-open, ``[start, stop)``, and lie in one flat, strictly increasing list of
edges: ``[start0, stop0, start1, stop1, ...]``. Ranges that overlap or touch are one range. The index at which
``bisect`` would put a number then answers most questions by its parity alone: an odd index lies inside a range, an
even one in a gap. Every change is one replaced slice of that list.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """A set of integers held as sorted, disjoint, half-open ranges.

    Iterating yields the ranges, lowest first, as they were when it began, so the set may be changed meanwhile.
    ``len()`` is how many numbers there are, ``spans()`` how many ranges.

    Args:
        ranges: ``(start, stop)`` pairs in any order; they may overlap, and an empty pair adds nothing.

    Source:
        The repeat test (M7) of a stored stream is the set of ranges it holds.
    """

    __slots__ = ("_count", "_edges")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._edges: list[int] = []
        self._count = 0
        for start, stop in ranges:
            self.add_range(start, stop)

    def add(self, number: int) -> bool:
        """Add one number.

        Args:
            number: Any integer; the one after the highest held costs least.

        Returns:
            True if the number was not held before.
        """
        edges = self._edges
        if not edges or number > edges[-1]:
            edges += (number, number + 1)
            self._count += 1
            return True
        if number == edges[-1]:
            edges[-1] = number + 1
            self._count += 1
            return True
        index = bisect_right(edges, number)
        if index & 1:
            return False
        joins_left = index > 0 and edges[index - 1] == number
        if edges[index] == number + 1:
            if joins_left:
                del edges[index - 1 : index + 1]
            else:
                edges[index] = number
        elif joins_left:
            edges[index - 1] = number + 1
        else:
            edges[index:index] = (number, number + 1)
        self._count += 1
        return True

    def add_range(self, start: int, stop: int) -> int:
        """Add the numbers of ``[start, stop)``; nothing if it is empty.

        Returns:
            How many of them were not held before.
        """
        if start >= stop:
            return 0
        edges = self._edges
        # Most often what is added lies behind all else, or follows it.
        if not edges or start > edges[-1]:
            edges += (start, stop)
            self._count += stop - start
            return stop - start
        if start == edges[-1]:
            edges[-1] = stop
            self._count += stop - start
            return stop - start
        low = bisect_left(edges, start)
        high = bisect_right(edges, stop, low)
        outer = [] if low & 1 else [start]
        if not high & 1:
            outer.append(stop)
        return self._replace(low, high, outer)

    def remove_range(self, start: int, stop: int) -> int:
        """Remove the numbers of ``[start, stop)``; nothing if it is empty.

        Returns:
            How many of them were held.
        """
        if start >= stop:
            return 0
        edges = self._edges
        if not edges or stop <= edges[0] or start >= edges[-1]:
            return 0
        if len(edges) == 2 and start <= edges[0]:
            # Most often what is removed is all there is, or its beginning.
            first, last = edges
            if stop >= last:
                edges.clear()
                stop = last
            else:
                edges[0] = stop
            self._count -= stop - first
            return stop - first
        low = bisect_left(edges, start)
        high = bisect_right(edges, stop, low)
        outer = [start] if low & 1 else []
        if high & 1:
            outer.append(stop)
        return -self._replace(low, high, outer)

    def discard(self, number: int) -> bool:
        """Remove one number.

        Returns:
            True if it was held.
        """
        return self.remove_range(number, number + 1) == 1

    def union_update(self, other: "RangeSet") -> None:
        """Add every number of another set."""
        for start, stop in other:
            self.add_range(start, stop)

    def difference_update(self, other: "RangeSet") -> None:
        """Remove every number of another set."""
        kept = self.difference(other)
        self._edges = kept._edges
        self._count = kept._count

    def pop_first(self) -> int:
        """Remove and return the lowest number.

        Raises:
            KeyError: The set is empty.
        """
        edges = self._edges
        if not edges:
            raise KeyError("no number is held")
        number = edges[0]
        if edges[1] == number + 1:
            del edges[:2]
        else:
            edges[0] = number + 1
        self._count -= 1
        return number

    def take(self, count: int) -> list[tuple[int, int]]:
        """Remove up to `count` of the lowest numbers.

        Returns:
            Their ranges, lowest first.
        """
        edges = self._edges
        taken = []
        left = count
        used = 0
        while left > 0 and used < len(edges):
            start, stop = edges[used], edges[used + 1]
            if stop - start > left:
                stop = edges[used] = start + left
            else:
                used += 2
            taken.append((start, stop))
            left -= stop - start
        del edges[:used]
        self._count -= sum(stop - start for start, stop in taken)
        return taken

    def keep_last(self, spans: int) -> None:
        """Drop the lowest ranges until at most `spans` (at least 1) are left."""
        excess = self._edges[: -2 * spans]
        if excess:
            self._count -= sum(excess[1::2]) - sum(excess[::2])
            del self._edges[: len(excess)]

    def missing(self, start: int, stop: int) -> "RangeSet":
        """Return the numbers of ``[start, stop)`` that are not held."""
        gaps = RangeSet()
        if start < stop:
            edges = self._edges
            low = bisect_right(edges, start)
            high = bisect_left(edges, stop, low)
            inner = edges[low:high] if low & 1 else [start, *edges[low:high]]
            if not high & 1:
                inner.append(stop)
            gaps._adopt(inner)
        return gaps

    def intersection(self, other: "RangeSet") -> "RangeSet":
        """Return the numbers that both sets hold."""
        mine, theirs = self._edges, other._edges
        common: list[int] = []
        # Jump over what lies wholly below the other set, then walk both lists side by side.
        i = bisect_right(mine, theirs[0]) & ~1 if theirs else len(mine)
        j = bisect_right(theirs, mine[0]) & ~1 if mine else 0
        while i < len(mine) and j < len(theirs):
            start = max(mine[i], theirs[j])
            stop = min(mine[i + 1], theirs[j + 1])
            if start < stop:
                common += (start, stop)
            if mine[i + 1] < theirs[j + 1]:
                i += 2
            else:
                j += 2
        both = RangeSet()
        both._adopt(common)
        return both

    def difference(self, other: "RangeSet") -> "RangeSet":
        """Return the numbers that this set holds and the other does not."""
        edges = self._edges
        if not edges:
            return RangeSet()
        return self.intersection(other.missing(edges[0], edges[-1]))

    def copy(self) -> "RangeSet":
        """Return an independent copy."""
        twin = RangeSet()
        twin._edges = self._edges.copy()
        twin._count = self._count
        return twin

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges, lowest first; ``list()`` of a set would make room for every number of it."""
        return list(iter(self))

    def first(self) -> int | None:
        """Return the lowest number, None if the set is empty."""
        return self._edges[0] if self._edges else None

    def last(self) -> int | None:
        """Return the highest number, None if the set is empty."""
        return self._edges[-1] - 1 if self._edges else None

    def newest(self, spans: int) -> list[tuple[int, int]]:
        """Return up to `spans` of the highest ranges, highest first."""
        tail = self._edges[-2 * spans :] if spans > 0 else []
        return list(zip(tail[-2::-2], tail[::-2], strict=True))

    def first_span(self) -> tuple[int, int] | None:
        """Return the lowest range, None if the set is empty."""
        edges = self._edges
        return (edges[0], edges[1]) if edges else None

    def until(self, number: int, stop: int) -> tuple[bool, int]:
        """Tell whether a number is held, and up to where that stays so.

        Returns:
            Whether it is, and the first number after it, at most `stop`, of which the contrary holds.
        """
        edges = self._edges
        index = bisect_right(edges, number)
        if index < len(edges) and edges[index] < stop:
            stop = edges[index]
        return index & 1 == 1, stop

    def past_missing(self, start: int, count: int) -> int:
        """Return the lowest number below which, from `start` on, `count` numbers are not held."""
        for low, high in self:
            if low >= start + count or not count:
                break
            if high > start:
                count -= max(low - start, 0)
                start = high
        return start + count

    def spans(self) -> int:
        """Return how many ranges there are."""
        return len(self._edges) >> 1

    def __contains__(self, number: int) -> bool:
        """Tell whether a number is held."""
        return bisect_right(self._edges, number) & 1 == 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the ``(start, stop)`` ranges, lowest first."""
        edges = self._edges
        return zip(edges[::2], edges[1::2], strict=True)

    def __len__(self) -> int:
        """Return how many numbers are held."""
        return self._count

    def __bool__(self) -> bool:
        """Tell whether any number is held."""
        return self._count > 0

    def __eq__(self, other: object) -> bool:
        """Compare by the numbers held."""
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._edges == other._edges

    def __repr__(self) -> str:
        """Show the ranges."""
        return f"RangeSet({self.ranges()})"

    def _replace(self, low: int, high: int, outer: list[int]) -> int:
        """Put `outer` in place of the edges ``[low, high)`` and return by how much the set grew."""
        edges = self._edges
        old = edges[low:high]
        # Stops stand at odd indices and count up, starts at even ones and count down.
        change = sum(outer[1::2]) - sum(outer[::2]) - sum(old[1::2]) + sum(old[::2])
        if low & 1:
            change = -change
        edges[low:high] = outer
        self._count += change
        return change

    def _adopt(self, edges: list[int]) -> None:
        """Take over a list of edges that keeps this class's invariant."""
        self._edges = edges
        self._count = sum(edges[1::2]) - sum(edges[::2])
