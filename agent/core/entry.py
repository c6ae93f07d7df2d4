"""A stream with all that belongs to it at this device."""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.receipts import ReceiptBook
from agent.core.retention import Retention
from agent.core.source import Source
from agent.core.stream import Stream


@dataclass(slots=True)
class Entry:
    """A stream with what belongs to it here.

    Attributes:
        stream: the stream.
        book: who holds how much of it.
        source: what cuts it, if it begins here.
        retention: what a message stream still retains.
        ended: whether its manner was told that no more comes.
        cancelled: whether a complete stream's cancel was passed on.
        progress_at: when progress was last told to the shell.
        told_bytes: what was told then.
        bridged: the epoch because of whose lost edges every open link has been told of the stream.
    """

    stream: Stream
    book: ReceiptBook
    source: Source | None = None
    retention: Retention | None = None
    ended: bool = False
    cancelled: bool = False
    progress_at: float = 0.0
    told_bytes: int = -1
    bridged: int | None = None
