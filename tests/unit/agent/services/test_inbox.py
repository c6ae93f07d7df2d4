import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.events import MessageGap, MessageReceived
from agent.services import inbox as inbox_module
from agent.services.inbox import Cursors, Inbox, Reader


def message(number: int, *, stream: str = "s1", source: str = "B", size: int = 1) -> MessageReceived:
    return MessageReceived("chat", source, stream, number, b"x" * size)


def numbers(reader: Reader, most: int = 100) -> list[object]:
    """Take what there is: the number of a message, or the ends of a gap."""
    return [
        entry.number if isinstance(entry, MessageReceived) else (entry.first, entry.last) for entry in reader.take(most)
    ]


def test_a_reader_gets_what_comes_after_it_began() -> None:
    inbox = Inbox()
    inbox.add(message(1))
    reader = inbox.read("chat", retained=False, seen={})
    inbox.add(message(2))
    inbox.add(MessageGap("chat", "B", "s1", 3, 4))
    assert numbers(reader) == [2, (3, 4)]
    assert numbers(reader) == []


def test_a_reader_may_begin_with_what_is_retained() -> None:
    inbox = Inbox()
    inbox.add(message(1))
    assert numbers(inbox.read("chat", retained=True, seen={})) == [1]
    assert numbers(inbox.read("other", retained=True, seen={})) == []


def test_readers_do_not_disturb_each_other() -> None:
    inbox = Inbox()
    readers = [inbox.read("chat", retained=False, seen={}) for _ in range(2)]
    for number in (1, 2, 3):
        inbox.add(message(number))
    assert numbers(readers[0], 1) == [1]
    assert numbers(readers[1]) == [1, 2, 3]
    assert numbers(readers[0]) == [2, 3]


def test_what_was_acknowledged_is_not_given_again() -> None:
    inbox = Inbox()
    for number in (1, 2, 3):
        inbox.add(message(number))
    inbox.add(message(1, stream="s2"))
    assert numbers(inbox.read("chat", retained=True, seen={"s1": 2})) == [3, 1]


def test_what_the_core_delivers_twice_is_given_once() -> None:
    inbox = Inbox()
    reader = inbox.read("chat", retained=False, seen={})
    for number in (1, 2, 1, 2, 3):
        inbox.add(message(number))
    assert numbers(reader) == [1, 2, 3]


def test_a_slow_reader_gets_a_gap_and_the_memory_is_bounded() -> None:
    inbox = Inbox(window_bytes=100)
    reader = inbox.read("chat", retained=False, seen={})
    for number in range(1, 21):
        inbox.add(message(number, size=10))
    assert numbers(reader) == [(1, 10), *range(11, 21)]
    assert inbox._logs["chat"].payload_bytes == 100


def test_a_gap_begins_behind_what_the_reader_has() -> None:
    inbox = Inbox(window_bytes=100)
    inbox.add(message(5, size=10))
    reader = inbox.read("chat", retained=False, seen={})
    for number in range(6, 26):
        inbox.add(message(number, size=10))
    assert numbers(reader)[0] == (6, 15)


def test_a_consumer_that_was_away_hears_what_it_missed() -> None:
    inbox = Inbox(window_bytes=30)
    for number in range(1, 11):
        inbox.add(message(number, size=10))
    assert numbers(inbox.read("chat", retained=True, seen={"s1": 4})) == [(5, 7), 8, 9, 10]
    assert numbers(inbox.read("chat", retained=True, seen={"s1": 7})) == [8, 9, 10]
    assert numbers(inbox.read("chat", retained=True, seen={})) == [8, 9, 10]


def test_entries_are_bounded_as_well_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "WINDOW_ENTRIES", 2)
    monkeypatch.setattr(inbox_module, "STREAMS_KEPT", 1)
    inbox = Inbox()
    inbox.add(MessageGap("chat", "B", "s1", 1, 2))
    inbox.add(message(3, size=0))
    reader = inbox.read("chat", retained=True, seen={})
    for stream in ("s2", "s3", "s4", "s5"):
        inbox.add(message(1, stream=stream, size=0))
    found = numbers(reader)
    assert found[-2:] == [1, 1]
    assert len(inbox._logs["chat"].dropped) == 1


async def test_a_waiting_reader_wakes_when_something_comes() -> None:
    inbox = Inbox()
    reader = inbox.read("chat", retained=False, seen={})
    waiting = asyncio.create_task(reader.wait(10))
    await asyncio.sleep(0)
    inbox.add(message(1))
    assert await waiting
    assert await reader.wait(0)
    assert numbers(reader) == [1]
    assert not await reader.wait(0)
    waiting = asyncio.create_task(reader.wait(10))
    await asyncio.sleep(0)
    inbox.wake()
    assert await waiting


@given(
    st.lists(st.one_of(st.integers(min_value=1, max_value=5), st.just("add")), max_size=200),
    st.integers(min_value=1, max_value=30),
)
def test_every_number_is_given_once_or_stands_in_a_gap(steps: list[object], window: int) -> None:
    inbox = Inbox(window_bytes=window)
    reader = inbox.read("chat", retained=False, seen={})
    added = 0
    got: list[int] = []
    for step in [*steps, 1_000]:
        if isinstance(step, int):
            for entry in numbers(reader, step):
                if isinstance(entry, int):
                    got.append(entry)
                elif isinstance(entry, tuple):
                    got.extend(range(entry[0], entry[1] + 1))
        else:
            added += 1
            inbox.add(message(added))
    assert got == list(range(1, added + 1))


def test_acknowledgements_outlive_the_agent(tmp_path: Path) -> None:
    cursors = Cursors(tmp_path)
    assert cursors.acknowledge("log", "chat", {"s1": 4})
    assert cursors.acknowledge("log", "chat", {"s1": 7, "s2": 1})
    assert cursors.acknowledge("log", "chat", {"s1": 3})
    assert Cursors(tmp_path).numbers("log", "chat") == {"s1": 7, "s2": 1}
    assert Cursors(tmp_path).numbers("log", "other") == {}


def test_an_acknowledgement_torn_by_a_crash_is_left_out(tmp_path: Path) -> None:
    Cursors(tmp_path).acknowledge("log", "chat", {"s1": 4})
    with (tmp_path / "cursors").open("a") as file:
        file.write('["log@chat", {"s1": ')
    cursors = Cursors(tmp_path)
    assert cursors.numbers("log", "chat") == {"s1": 4}
    cursors.acknowledge("log", "chat", {"s1": 5})
    assert Cursors(tmp_path).numbers("log", "chat") == {"s1": 5}


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    Cursors(tmp_path).acknowledge("log", "chat", {"s1": 4})
    with (tmp_path / "cursors").open("ab") as file:
        file.write(b"\xff\n")
    cursors = Cursors(tmp_path)
    assert cursors.numbers("log", "chat") == {"s1": 4}
    cursors.acknowledge("log", "chat", {"s1": 5})
    assert Cursors(tmp_path).numbers("log", "chat") == {"s1": 5}


def test_acknowledgements_that_cannot_be_written_anew_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cursors(tmp_path).acknowledge("log", "chat", {"s1": 4})
    (tmp_path / "cursors.new").mkdir()
    with (tmp_path / "cursors").open("a") as file:
        file.write('["log@chat", {"s1": ')
    monkeypatch.setattr(inbox_module, "_COMPACT_LINES", 0)
    cursors = Cursors(tmp_path)
    assert cursors.numbers("log", "chat") == {"s1": 4}
    assert cursors.acknowledge("log", "chat", {"s1": 5})
    assert Cursors(tmp_path).numbers("log", "chat") == {"s1": 5}


@pytest.mark.parametrize("content", [b"\xff", b"[]\n5\n{}\n", b'["a", 5]\n'])
def test_spoilt_acknowledgements_do_no_harm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cursors").write_bytes(content)
    assert Cursors(tmp_path).numbers("a", "chat") == {}


def test_a_long_record_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "_COMPACT_LINES", 3)
    cursors = Cursors(tmp_path)
    for number in range(1, 10):
        cursors.acknowledge("log", "chat", {"s1": number})
    lines = (tmp_path / "cursors").read_text().splitlines()
    assert len(lines) <= 4
    assert json.loads(lines[-1]) == ["log@chat", {"s1": 9}]


def test_one_reader_acts_for_a_consumer_at_a_time(tmp_path: Path) -> None:
    cursors = Cursors(tmp_path)
    assert cursors.claim("log", "chat")
    assert not cursors.claim("log", "chat")
    assert cursors.claim("log", "other")
    cursors.release("log", "chat")
    assert cursors.claim("log", "chat")


def test_there_are_only_so_many_consumers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_CONSUMERS", 1)
    cursors = Cursors(tmp_path)
    assert cursors.acknowledge("one", "chat", {"s1": 1})
    assert not cursors.acknowledge("two", "chat", {"s1": 1})
    assert cursors.acknowledge("one", "chat", {"s1": 2})
