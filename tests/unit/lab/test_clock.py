from lab.clock import Agenda, Alarm


def test_things_happen_in_the_order_of_time_and_then_of_putting() -> None:
    agenda = Agenda()
    happened: list[tuple[float, str]] = []
    for at, what in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        agenda.put(at, lambda what: happened.append((agenda.now, what)), what)
    agenda.run_to(1.5)
    assert happened == [(1.0, "a"), (1.0, "b")]
    assert agenda.now == 1.5
    agenda.run_to(3.0)
    assert happened[-1] == (2.0, "c")


def test_what_lies_in_the_past_happens_next_and_time_never_goes_back() -> None:
    agenda = Agenda()
    agenda.run_to(5.0)
    seen: list[float] = []
    agenda.put(1.0, lambda _: seen.append(agenda.now))
    agenda.after(0.0, lambda _: seen.append(agenda.now))
    agenda.run_to(5.0)
    assert seen == [5.0, 5.0]
    agenda.run_to(4.0)
    assert agenda.now == 5.0


def rings(agenda: Agenda) -> tuple[Alarm, list[float]]:
    rung: list[float] = []
    return Alarm(agenda, lambda: rung.append(agenda.now)), rung


def test_an_alarm_rings_once_at_its_last_setting() -> None:
    agenda = Agenda()
    alarm, rung = rings(agenda)
    alarm.set(1.0)
    alarm.set(3.0)
    alarm.set(2.0)
    agenda.run_to(10.0)
    assert rung == [2.0]


def test_an_alarm_set_earlier_rings_earlier() -> None:
    agenda = Agenda()
    alarm, rung = rings(agenda)
    alarm.set(5.0)
    alarm.set(1.0)
    agenda.run_to(2.0)
    alarm.set(6.0)
    agenda.run_to(10.0)
    assert rung == [1.0, 6.0]


def test_an_alarm_that_is_taken_back_does_not_ring() -> None:
    agenda = Agenda()
    alarm, rung = rings(agenda)
    alarm.set(1.0)
    alarm.set(None)
    agenda.run_to(10.0)
    assert rung == []
