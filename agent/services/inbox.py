"""Received messages, kept for the applications that read them.

Theory of operation. Each channel has one log with a position for every entry; its window is bounded in bytes and
entries, oldest out first. A reader holds a position and asks for what comes next, so a slow one costs nothing: when
the window has moved past it, it gets a gap entry for what it missed. A named consumer's acknowledgements are kept
on disk, one number a stream; it begins behind them, and what the core delivers a second time after a restart is not
given to it again.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.core.events import MessageGap, MessageReceived
from agent.services.identity import append_line, write_atomically
from agent.services.ledger import News, happened
from common.ids import ChannelId

log = logging.getLogger(__name__)

WINDOW_BYTES: Final = 64 * 1024 * 1024
"""Payload bytes kept for the readers of one channel."""
WINDOW_ENTRIES: Final = 65_536
"""Entries kept for the readers of one channel."""
STREAMS_KEPT: Final = 4_096
"""Streams of which a channel's log, or a consumer, remembers the last number."""
MAX_CONSUMERS: Final = 256
"""Named consumers of one agent."""
_COMPACT_LINES: Final = 10_000

Entry = MessageReceived | MessageGap


@dataclass(slots=True)
class _Log:
    entries: deque[Entry] = field(default_factory=deque)
    first: int = 0
    payload_bytes: int = 0
    dropped: dict[str, MessageGap] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    news: News = field(default_factory=News)

    @property
    def end(self) -> int:
        return self.first + len(self.entries)


class Reader:
    """One application's place in a channel's log.

    Args:
        log: the channel's log.
        position: of the first entry to give.
        seen: the last number of each stream that the application has, by an earlier acknowledgement.
    """

    def __init__(self, log: _Log, position: int, seen: Mapping[str, int]) -> None:
        self._log = log
        self._position = position
        self._seen = dict(seen)

    def take(self, most: int) -> list[Entry]:
        """Return the next entries that are new to the application, gaps among them; empty if there are none yet."""
        found: list[Entry] = []
        if self._position < self._log.first:
            found.extend(self._missed())
            self._position = self._log.first
        while self._position < self._log.end and len(found) < most:
            entry = self._log.entries[self._position - self._log.first]
            self._position += 1
            last = _last_number(entry)
            if last > self._seen.get(entry.stream, 0):
                _remember(self._seen, entry.stream, last)
                found.append(entry)
        return found

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - a wait that ends is the point
        """Wait for more, for so many seconds at most; False if nothing came."""
        if self._position < self._log.end:
            return True
        return await happened(self._log.news.next(), timeout)

    def _missed(self) -> list[MessageGap]:
        """Return one gap for each stream whose entries left the window before this reader came to them."""
        gaps = []
        for stream, dropped in self._log.dropped.items():
            seen = self._seen.get(stream, 0)
            if dropped.last > seen:
                first = max(seen + 1, dropped.first)
                gaps.append(MessageGap(dropped.channel, dropped.source, stream, first, dropped.last))
                _remember(self._seen, stream, dropped.last)
        return gaps


class Inbox:
    """The logs of all channels.

    Args:
        window_bytes: payload bytes kept for each channel.
    """

    def __init__(self, window_bytes: int = WINDOW_BYTES) -> None:
        self._window_bytes = window_bytes
        self._logs: dict[ChannelId, _Log] = {}

    def add(self, event: Entry) -> None:
        """Append what the core delivered."""
        channel = self._log(event.channel)
        channel.entries.append(event)
        channel.payload_bytes += _size(event)
        _remember(channel.last, event.stream, _last_number(event))
        while channel.payload_bytes > self._window_bytes or len(channel.entries) > WINDOW_ENTRIES:
            _drop_oldest(channel)
        channel.news.happen()

    def read(self, channel: ChannelId, *, retained: bool, seen: Mapping[str, int]) -> Reader:
        """Return a reader.

        Args:
            channel: whose messages.
            retained: whether to begin with what is kept, rather than with what comes.
            seen: the last number of each stream that the application has.
        """
        kept = self._log(channel)
        if not retained:
            return Reader(kept, kept.end, kept.last)
        # Position 0 may have left the window: a consumer that comes back hears of what it missed.
        return Reader(kept, 0 if seen else kept.first, seen)

    def wake(self) -> None:
        """Wake every reader, so that it sees that the agent stops."""
        for kept in self._logs.values():
            kept.news.happen()

    def _log(self, channel: ChannelId) -> _Log:
        return self._logs.setdefault(channel, _Log())


class Cursors:
    """What named consumers acknowledged, on disk.

    A line is added for each acknowledgement before it is confirmed; a long file is written anew with the last ones
    only.

    Args:
        folder: the agent's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cursors"
        self._numbers: dict[str, dict[str, int]] = {}
        self._busy: dict[str, None] = {}
        self._lines = 0
        self._load()

    def numbers(self, consumer: str, channel: ChannelId) -> Mapping[str, int]:
        """Return the last number of each stream that a consumer acknowledged."""
        return dict(self._numbers.get(_key(consumer, channel), {}))

    def claim(self, consumer: str, channel: ChannelId) -> bool:
        """Let one reader act for a consumer at a time; False if another does."""
        key = _key(consumer, channel)
        if key in self._busy:
            return False
        self._busy[key] = None
        return True

    def release(self, consumer: str, channel: ChannelId) -> None:
        """End a claim."""
        self._busy.pop(_key(consumer, channel), None)

    def acknowledge(self, consumer: str, channel: ChannelId, numbers: Mapping[str, int]) -> bool:
        """Keep what a consumer has dealt with, for good; False if there are too many consumers.

        Raises:
            OSError: it cannot be written.
        """
        key = _key(consumer, channel)
        if key not in self._numbers and len(self._numbers) >= MAX_CONSUMERS:
            return False
        kept = self._numbers.setdefault(key, {})
        newer = {stream: number for stream, number in numbers.items() if number > kept.get(stream, 0)}
        if newer:
            append_line(self._path, json.dumps([key, newer]))
            for stream, number in newer.items():
                _remember(kept, stream, number)
            self._lines += 1
            if self._lines > _COMPACT_LINES:
                self._compact()
        return True

    def _load(self) -> None:
        try:
            # Damage in one line must not hide the others, nor what is added to the file from now on.
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("= the consumers' acknowledgements cannot be read: %s", error)
            return
        for line in lines:
            try:
                key, numbers = json.loads(line)
                kept = self._numbers.setdefault(str(key), {})
                for stream, number in numbers.items():
                    _remember(kept, str(stream), int(number))
            except (ValueError, TypeError, AttributeError):
                continue  # the last line of a crash
        self._compact()

    def _compact(self) -> None:
        lines = [json.dumps(pair) + "\n" for pair in self._numbers.items()]
        self._lines = 0
        try:
            write_atomically(self._path, "".join(lines).encode())
        except OSError as error:
            # The long file says the same.
            log.warning("= the consumers' acknowledgements cannot be written anew: %s", error)


def _key(consumer: str, channel: ChannelId) -> str:
    return f"{consumer}@{channel}"


def _last_number(entry: Entry) -> int:
    return entry.number if isinstance(entry, MessageReceived) else entry.last


def _size(entry: Entry) -> int:
    return len(entry.payload) if isinstance(entry, MessageReceived) else 0


def _drop_oldest(kept: _Log) -> None:
    entry = kept.entries.popleft()
    kept.first += 1
    kept.payload_bytes -= _size(entry)
    first = entry.number if isinstance(entry, MessageReceived) else entry.first
    older = kept.dropped.pop(entry.stream, None)
    kept.dropped[entry.stream] = MessageGap(
        entry.channel, entry.source, entry.stream, older.first if older else first, _last_number(entry)
    )
    if len(kept.dropped) > STREAMS_KEPT:
        del kept.dropped[next(iter(kept.dropped))]


def _remember(numbers: dict[str, int], stream: str, number: int) -> None:
    """Note a stream's last number, the most recently heard stream last."""
    numbers.pop(stream, None)
    numbers[stream] = number
    if len(numbers) > STREAMS_KEPT:
        del numbers[next(iter(numbers))]
