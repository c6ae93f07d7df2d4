from lab.clock import Agenda
from lab.slots import SLOT_S, Slots


def test_what_arrives_in_one_slot_is_handed_over_together_in_the_order_of_arrival() -> None:
    agenda, taken = Agenda(), list[tuple[float, list[str]]]()
    slots: Slots[str] = Slots(agenda, lambda batch: taken.append((agenda.now, batch)))
    slots.put(0.6 * SLOT_S, "second")
    slots.put(0.4 * SLOT_S, "first")
    slots.put(1.5 * SLOT_S, "later")
    agenda.run_to(1.0)
    assert taken == [(SLOT_S, ["first", "second"]), (2 * SLOT_S, ["later"])]


def test_what_is_cleared_does_not_arrive() -> None:
    agenda, taken = Agenda(), list[list[str]]()
    slots: Slots[str] = Slots(agenda, taken.append)
    slots.put(0.0, "a")
    slots.put(SLOT_S, "b")
    assert slots.clear() == ["a", "b"]
    agenda.run_to(1.0)
    assert taken == []
