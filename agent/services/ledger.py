"""What became of each stream, as the commands ask for it: the core's events, folded into one entry a stream."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from agent.core.events import (
    Event,
    FileFailed,
    FileVerified,
    ForgeryFound,
    Receipt,
    ReceiptsChanged,
    StreamCancelled,
    StreamOpened,
    StreamProgress,
)
from common.ids import ChannelId, DeviceId

log = logging.getLogger(__name__)

ENTRIES_KEPT: Final = 4_096
"""Streams that are remembered; the oldest go first, ended or not."""

State = Literal["sending", "sent", "receiving", "verified", "failed", "cancelled"]
_ENDED: Final = ("verified", "refused", "cancelled")
"""Receipt states after which nothing more comes from a device."""


class News:
    """Lets any number of tasks wait until something happens the next time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def happen(self) -> None:
        """Wake all that wait now."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Return the event that is set when something happens after this call."""
        return self._event


async def happened(event: asyncio.Event, timeout: float) -> bool:  # noqa: ASYNC109 - a bound wait
    """Wait for news, for so many seconds at most; False if there were none."""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True


@dataclass(slots=True)
class Entry:
    """One stream.

    Attributes:
        stream: its id in hex.
        channel: the channel it is on.
        source: who sends it.
        kind: ``file`` or ``message``.
        name: of the file, as the source calls it.
        size_bytes: of the file; None for messages.
        state: how it stands here; of a stream from here ``sending``, and ``sent`` when every receipt ended.
        held_bytes: of a file, what is here.
        reason: why it failed or was cancelled.
        sha256: of the verified file.
        members: at its source, the devices whose receipts are awaited.
        receipts: at its source, what they said last.
    """

    stream: str
    channel: ChannelId
    source: DeviceId
    kind: str
    name: str
    size_bytes: int | None
    state: State
    held_bytes: int = 0
    reason: str = ""
    sha256: str = ""
    members: tuple[DeviceId, ...] = ()
    receipts: Mapping[DeviceId, Receipt] = field(default_factory=dict)
    news: News = field(default_factory=News, repr=False)

    def settled(self, present: Callable[[], tuple[DeviceId, ...]]) -> dict[DeviceId, Receipt]:
        """Return one receipt for each awaited device.

        Args:
            present: the members of the group now; who left will never answer and counts as refusing.
        """
        here = dict.fromkeys(present())
        found: dict[DeviceId, Receipt] = {}
        for member in self.members:
            receipt = self.receipts.get(member, Receipt("waiting"))
            if member not in here and receipt.state not in _ENDED:
                receipt = Receipt("refused", receipt.held_bytes, "no member of the group any more")
            found[member] = receipt
        return found


class Ledger:
    """All streams that this agent knows of.

    Args:
        device: this device.
    """

    def __init__(self, device: DeviceId) -> None:
        self._device = device
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def get(self, stream: str) -> Entry | None:
        """Return one stream's entry, or None if it is not remembered."""
        return self._entries.get(stream)

    def entries(self) -> list[Entry]:
        """Return all that is remembered, oldest first."""
        return list(self._entries.values())

    def on_event(self, event: Event) -> None:
        """Note what the core said; what is not about streams is left to others."""
        if isinstance(event, StreamOpened):
            self._open(event)
        elif isinstance(event, StreamProgress | FileVerified | FileFailed | StreamCancelled | ReceiptsChanged):
            entry = self._entries.get(event.stream)
            if entry is not None:
                _note(entry, event)
                entry.news.happen()
        elif isinstance(event, ForgeryFound):
            log.warning(
                "= chunks %d to %d of stream %s are not what %s sent; %s was bringing it: dropped, asked for elsewhere",
                event.first,
                event.last,
                event.stream,
                event.source,
                event.bringer or "nobody",
            )

    def _open(self, event: StreamOpened) -> None:
        own = event.source == self._device
        self._entries[event.stream] = Entry(
            stream=event.stream,
            channel=event.channel,
            source=event.source,
            kind=event.kind,
            name=event.name,
            size_bytes=event.size_bytes,
            state="sending" if own else "receiving",
        )
        if len(self._entries) > ENTRIES_KEPT:
            self._entries.popitem(last=False)


def ended(receipts: Mapping[DeviceId, Receipt]) -> bool:
    """Tell whether every device has said its last word."""
    return all(receipt.state in _ENDED for receipt in receipts.values())


def all_verified(receipts: Mapping[DeviceId, Receipt]) -> bool:
    """Tell whether every device has the file, its hash checked."""
    return all(receipt.state == "verified" for receipt in receipts.values())


def _note(
    entry: Entry,
    event: StreamProgress | FileVerified | FileFailed | StreamCancelled | ReceiptsChanged,
) -> None:
    match event:
        case StreamProgress():
            entry.held_bytes = event.held_bytes
        case FileVerified():
            entry.state, entry.sha256, entry.held_bytes = "verified", event.sha256, event.size_bytes
            log.info("= received %r from %s, sha256 %s", event.name, event.source, event.sha256)
        case FileFailed():
            entry.state, entry.reason = "failed", f"{event.reason}: {event.detail}"
            log.warning("= stream %s failed: %s: %s", event.stream, event.reason, event.detail)
        case StreamCancelled():
            entry.state, entry.reason = "cancelled", event.reason
        case ReceiptsChanged():
            entry.receipts = dict(event.receipts)
            if entry.state == "sending" and entry.receipts and ended(entry.receipts):
                entry.state = "sent"
