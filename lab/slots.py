"""What is on its way to one place: handed over in slots of time, in the order of arrival, as a batch for each slot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from operator import itemgetter
from typing import Final, Generic, TypeVar

from lab.clock import Agenda

SLOT_S: Final = 0.00025
"""Seconds of a slot: what a busy process finds together at its socket."""

_T = TypeVar("_T")
_arrival: Final = itemgetter(0)


class Slots(Generic[_T]):
    """The arrivals at one place.

    Args:
        agenda: the simulated time.
        take: called at the end of each slot with what arrived in it.
    """

    __slots__ = ("_agenda", "_slots", "_take")

    def __init__(self, agenda: Agenda, take: Callable[[list[_T]], None]) -> None:
        self._agenda = agenda
        self._take = take
        self._slots: dict[int, list[tuple[float, _T]]] = {}

    def put(self, arrival: float, item: _T) -> None:
        """Let something arrive at a time."""
        slot = int(arrival / SLOT_S) + 1
        waiting = self._slots.get(slot)
        if waiting is None:
            self._slots[slot] = [(arrival, item)]
            self._agenda.put(slot * SLOT_S, self._hand_over, slot)
        else:
            waiting.append((arrival, item))

    def clear(self) -> list[_T]:
        """Take everything away that is still on its way, and return it."""
        left = [item for _, item in itertools.chain.from_iterable(self._slots.values())]
        self._slots.clear()
        return left

    def _hand_over(self, slot: int) -> None:
        waiting = self._slots.pop(slot, None)
        if waiting is None:
            return  # It was cleared meanwhile.
        waiting.sort(key=_arrival)
        self._take([item for _, item in waiting])
