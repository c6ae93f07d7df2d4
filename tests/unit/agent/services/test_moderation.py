"""When a busy socket is looked at by intervals, and when it wakes the loop again."""

from agent.services.moderation import FULL_PART, LARGE_BYTES, QUIET_LOOKS, RAPID_S, RAPID_WAKES, Look, Moderation

BUFFER_BYTES = 200_000


def test_a_socket_that_wakes_the_loop_now_and_then_is_read_on_arrival() -> None:
    moderation = Moderation(BUFFER_BYTES)
    assert {moderation.on_wake(number * RAPID_S, LARGE_BYTES) for number in range(1, 100)} == {Look.ON_ARRIVAL}


def test_rapid_wakes_in_a_row_lead_to_looks_at_intervals() -> None:
    moderation = Moderation(BUFFER_BYTES)
    looks = [moderation.on_wake(1.0 + number * RAPID_S / 2, LARGE_BYTES) for number in range(RAPID_WAKES + 1)]
    assert looks == [Look.ON_ARRIVAL] * RAPID_WAKES + [Look.LATER]
    # One pause among them, and the count begins anew.
    moderation = Moderation(BUFFER_BYTES)
    moments = [number * RAPID_S / 2 + (number >= 5) * RAPID_S for number in range(RAPID_WAKES + 1)]
    assert {moderation.on_wake(moment, LARGE_BYTES) for moment in moments} == {Look.ON_ARRIVAL}


def test_small_datagrams_are_read_on_arrival_however_fast_they_come_and_change_nothing_for_large_ones() -> None:
    moderation = Moderation(BUFFER_BYTES)
    small = LARGE_BYTES - 1
    assert {moderation.on_wake(1.0 + number * RAPID_S / 100, small) for number in range(1_000)} == {Look.ON_ARRIVAL}
    looks = [
        moderation.on_wake(2.0 + number * RAPID_S / 4, LARGE_BYTES if number % 2 else small)
        for number in range(2 * RAPID_WAKES + 2)
    ]
    assert looks[-1] is Look.LATER
    assert set(looks[:-1]) == {Look.ON_ARRIVAL}


def test_looks_go_on_while_they_bring_large_datagrams_and_end_when_they_do_not() -> None:
    moderation = Moderation(BUFFER_BYTES)
    assert moderation.on_look(1_000_000, LARGE_BYTES, more=True) is Look.AT_ONCE
    assert [moderation.on_look(size, size, more=False) for size in (9_000, 0, 60, 1_472)] == [Look.LATER] * 4
    quiet = [moderation.on_look(5_000, LARGE_BYTES - 1, more=False) for _ in range(QUIET_LOOKS)]
    assert quiet == [Look.LATER] * (QUIET_LOOKS - 1) + [Look.ON_ARRIVAL]


def test_a_buffer_that_fills_faster_than_that_is_looked_at_without_a_pause() -> None:
    moderation = Moderation(BUFFER_BYTES)
    full = BUFFER_BYTES // FULL_PART
    assert moderation.on_look(full, 1_472, more=False) is Look.LATER
    assert moderation.on_look(full + 1, 1_472, more=False) is Look.AT_ONCE
