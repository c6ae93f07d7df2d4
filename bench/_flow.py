"""A steady flow of messages from one device, and what came of it at all others: when each arrived, and how often.

The publisher and each follower are threads of this process that speak to the agents' local API as programs do. Times
are of the monotonic clock. A device that is killed is followed again once it runs, from all that it has retained: what
came to two runs of a follower came once to each, and counts once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from agent.publisher import Publisher
from common.errors import ArborcastError, ConnectError
from common.ids import DeviceId
from lab.loopback import SOCKET, LoopbackSystem

CHANNEL: Final = "messages"
STAMP: Final = struct.Struct("!QI")
READ_BYTES: Final = 1 << 16
SILENCE_S: Final = 10.0
LOOK_S: Final = 0.01


@dataclass(slots=True)
class Follower:
    """Follows the channel at one agent in a thread of its own, until the agent ends or is left.

    Attributes:
        path: The agent's socket.
        since: ``new`` or ``retained``: from which message on.
        arrivals: When what number arrived, in that order.
        gaps: Numbers that the agent said are lost.
    """

    path: Path
    since: str = "new"
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    gaps: int = 0
    _following: threading.Event = field(default_factory=threading.Event)
    _socket: socket.socket | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow, and wait until the agent says that it has begun.

        Raises:
            ConnectError: It does not.
        """
        request = f"GET /messages?channel={CHANNEL}&from={self.since} HTTP/1.1\r\nHost: agent\r\n\r\n"
        self._socket = asked = socket.socket(socket.AF_UNIX)
        try:
            asked.connect(str(self.path))
            asked.sendall(request.encode())
        except OSError as error:
            raise ConnectError(f"the agent at {self.path} cannot be followed: {error}") from error
        self._thread = threading.Thread(target=self._follow, args=(asked,), daemon=True)
        self._thread.start()
        if not self._following.wait(SILENCE_S):
            raise ConnectError(f"the agent at {self.path} does not let its messages be followed")

    def stop(self) -> None:
        """Leave."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # Its agent may have been killed.
                self._socket.shutdown(socket.SHUT_RDWR)
            if self._thread is not None:
                self._thread.join()
            self._socket.close()

    @property
    def last(self) -> int:
        """The last number that arrived; -1 before the first."""
        return self.arrivals[-1][1] if self.arrivals else -1

    def largest_gap(self, began: float, ended: float) -> float | None:
        """Return the largest pause between two arrivals that lasted at some time between two times, in seconds."""
        pauses = [
            later - earlier for (earlier, _), (later, _) in pairwise(self.arrivals) if later > began and earlier < ended
        ]
        return max(pauses, default=None)

    def _follow(self, asked: socket.socket) -> None:
        rest = b""
        while part := _receive(asked):
            now = time.monotonic()
            # Lines of JSON within HTTP chunks; the lines of the framing do not begin with a brace.
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    self._take(json.loads(line), now)

    def _take(self, entry: dict[str, Any], now: float) -> None:
        match entry["event"]:
            case "message":
                _, number = STAMP.unpack_from(base64.b64decode(entry["payload"]))
                self.arrivals.append((now, number))
            case "gap":
                self.gaps += entry["last"] - entry["first"] + 1
            case "following":
                self._following.set()
            case _:
                pass  # It is still there, or ends.


class Flow:
    """Messages at an even pace from one device to all others.

    Attributes:
        stream: The messages' stream, in hex; empty before the first.
        published: Messages that the source's agent has taken.
        followers: By device: of each run of its agent one.
    """

    def __init__(self, system: LoopbackSystem, source: DeviceId, *, per_second: float, message_bytes: int) -> None:
        """Prepare to publish.

        Args:
            system: Started; its graph spans all devices.
            source: Who publishes; its agent is never killed.
            per_second: Messages a second.
            message_bytes: Bytes of each.
        """
        self.stream = ""
        self.published = 0
        self.followers: dict[DeviceId, list[Follower]] = {
            device: [] for device in system.scenario.devices if device != source
        }
        self._system = system
        self._source = source
        self._per_second = per_second
        self._padding = bytes(max(0, message_bytes - STAMP.size))
        self._ending = threading.Event()
        self._failure: ArborcastError | None = None
        self._thread = threading.Thread(target=self._publish, daemon=True)

    async def start(self) -> None:
        """Follow everywhere, then begin to publish.

        Raises:
            ConnectError: An agent cannot be followed, or takes nothing.
        """
        for device in self.followers:
            await self.follow(device, since="new")
        self._thread.start()
        await self.wait(lambda: self.published > 0, within=SILENCE_S, what="the first message")

    async def follow(self, device: DeviceId, since: str = "retained") -> None:
        """Follow at a device whose agent has just been started."""
        follower = Follower(self._system.folder / device / SOCKET, since)
        self.followers[device].append(follower)
        await asyncio.to_thread(follower.start)

    async def wait(self, goal: Any, *, within: float, what: str) -> None:
        """Wait until something is so.

        Args:
            goal: Asked until it is true.
            within: Seconds before giving up.
            what: Is waited for.

        Raises:
            ConnectError: It did not come about in time.
            ArborcastError: The publisher's agent went away, or a process ended.
        """
        until = time.monotonic() + within
        while not goal():
            if self._failure is not None:
                raise self._failure
            self._system.check()
            if time.monotonic() >= until:
                raise ConnectError(f"{what} did not come within {within:g} s")
            await asyncio.sleep(LOOK_S)

    def reached(self, devices: Iterable[DeviceId], number: int) -> bool:
        """Tell whether all of some devices have a message, and so all before it."""
        return all(self.followers[device][-1].last >= number for device in devices)

    async def end(self, *, within: float) -> dict[DeviceId, int]:
        """Publish no more, wait until everything is everywhere or the time is up, and leave.

        Returns:
            How many messages each device that lacks some has not got.
        """
        self._ending.set()
        await asyncio.to_thread(self._thread.join)
        last = self.published - 1
        # What is missing is returned.
        with contextlib.suppress(ConnectError):
            await self.wait(lambda: self.reached(self.followers, last), within=within, what="the last message")
        for runs in self.followers.values():
            for follower in runs:
                await asyncio.to_thread(follower.stop)
        return self.missing()

    def missing(self) -> dict[DeviceId, int]:
        """Return how many of the messages published so far each device that lacks some has not got."""
        found = {}
        for device, runs in self.followers.items():
            numbers = {number for run in runs for _, number in run.arrivals}
            if lacks := self.published - len(numbers):
                found[device] = lacks
        return found

    def repeated(self) -> dict[DeviceId, int]:
        """Return how many messages came more than once to one run of each device that got any twice."""
        found = {}
        for device, runs in self.followers.items():
            times = sum(count - 1 for run in runs for count in Counter(number for _, number in run.arrivals).values())
            if times:
                found[device] = times
        return found

    def _publish(self) -> None:
        began = time.monotonic()
        try:
            with Publisher(self._system.folder / self._source / SOCKET, CHANNEL) as publisher:
                while not self._ending.is_set():
                    time.sleep(max(0.0, began + self.published / self._per_second - time.monotonic()))
                    stamp = STAMP.pack(time.monotonic_ns(), self.published)
                    self.stream = str(publisher.publish(stamp + self._padding)["stream"])
                    self.published += 1
        except ArborcastError as error:
            self._failure = error


def _receive(asked: socket.socket) -> bytes:
    try:
        return asked.recv(READ_BYTES)
    except OSError:
        return b""
