"""Turns: strict among classes, fair by bytes inside one."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.core.scheduler import RoundRobin


def serve(turns: RoundRobin[str], sizes: dict[str, int], count: int) -> list[str]:
    """Send packets, each key's of its own size, and give the order of the keys."""
    order = []
    for _ in range(count):
        key = turns.next_key()
        assert key is not None
        turns.spend(key, sizes[key])
        order.append(key)
    return order


def test_nobody_has_a_turn_where_nobody_is() -> None:
    turns: RoundRobin[str] = RoundRobin()
    assert not turns
    assert turns.next_key() is None
    turns.remove("a")
    turns.spend("a", 10)
    assert len(turns) == 0


def test_a_turn_lasts_a_quantum_and_then_passes_on() -> None:
    turns: RoundRobin[str] = RoundRobin(100)
    turns.add("a")
    turns.add("b")
    assert "".join(serve(turns, {"a": 50, "b": 100}, 9)) == "aabaabaab"


def test_an_overdrawn_turn_shortens_the_following_ones() -> None:
    turns: RoundRobin[str] = RoundRobin(100)
    turns.add("a")
    turns.add("b")
    assert "".join(serve(turns, {"a": 250, "b": 100}, 7)) == "abbabbb"


def test_a_key_is_added_once_and_served_last_in_line() -> None:
    turns: RoundRobin[str] = RoundRobin(100)
    turns.add("a")
    turns.spend("a", 60)
    turns.add("b")
    turns.add("a")
    assert len(turns) == 2
    assert "".join(serve(turns, {"a": 60, "b": 60}, 4)) == "abba"


def test_a_key_that_leaves_is_passed_over() -> None:
    turns: RoundRobin[str] = RoundRobin(100)
    for key in "abc":
        turns.add(key)
    turns.remove("b")
    assert "b" not in turns
    assert "a" in turns
    assert "".join(serve(turns, {"a": 100, "c": 100}, 4)) == "acac"


def test_what_is_left_of_a_turn_is_told() -> None:
    turns: RoundRobin[str] = RoundRobin(100)
    turns.add("a")
    turns.add("b")
    left = []
    for _ in range(5):
        key = turns.next_key()
        assert key is not None
        left.append((key, turns.left(key)))
        turns.spend(key, 60)
    assert left == [("a", 100), ("a", 40), ("b", 100), ("b", 40), ("a", 80)]


@given(st.lists(st.integers(1, 9_000), min_size=2, max_size=8), st.sampled_from([500, 16_384]))
def test_keys_that_always_have_packets_get_equal_bytes(sizes: list[int], quantum: int) -> None:
    turns: RoundRobin[str] = RoundRobin(quantum)
    packet = {str(index): size for index, size in enumerate(sizes)}
    for key in packet:
        turns.add(key)
    sent: Counter[str] = Counter()
    for _ in range(300):
        [key] = serve(turns, packet, 1)
        sent[key] += packet[key]
        # Nobody is ahead of another by more than a turn and the packet that overdrew it.
        shares = [sent[key] for key in packet]
        assert max(shares) - min(shares) <= 2 * quantum + max(sizes)
