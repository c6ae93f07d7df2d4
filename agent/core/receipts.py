"""Receipts: who holds how much of a stream, gathered up the tree to its source.

Each device keeps the last receipt of every device it heard of, itself included, and passes changes on towards the
source: final ones at once, progress at most once a second. Merging is idempotent, so a receipt may come twice or by
two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, cast

from agent.core.events import Receipt, ReceiptState
from common.ids import DeviceId
from common.limits import MAX_DEVICES_PER_GROUP, MAX_REASON_BYTES
from common.stream_frames import SIGNED_STATES, ReceiptEntry

PROGRESS_EVERY_S: Final = 1.0
_RANK: Final = {"waiting": 0, "receiving": 1, "cancelled": 2, "refused": 3, "verified": 4}


class ReceiptBook:
    """The receipts of one stream as this device knows them."""

    def __init__(self) -> None:
        self.receipts: dict[DeviceId, Receipt] = {}
        self._dirty: dict[DeviceId, None] = {}
        self._sent_at: float | None = None
        self._urgent = False

    def put(self, device: DeviceId, receipt: Receipt) -> bool:
        """Take a receipt; return whether it says more than the one before."""
        before = self.receipts.get(device)
        if before is not None:
            if _order(receipt) <= _order(before):
                return False
        elif len(self.receipts) >= MAX_DEVICES_PER_GROUP:
            return False
        self.receipts[device] = receipt
        self._dirty[device] = None
        if receipt.state in SIGNED_STATES:
            self._urgent = True
        return True

    def due_at(self) -> float | None:
        """Return when something is to be passed on; None if nothing changed."""
        if not self._dirty:
            return None
        if self._urgent or self._sent_at is None:
            return 0.0
        return self._sent_at + PROGRESS_EVERY_S

    def touch_all(self) -> None:
        """Pass everything on once more: the way to the source changed."""
        self._dirty.update(dict.fromkeys(self.receipts))
        self._urgent = any(receipt.state in SIGNED_STATES for receipt in self.receipts.values())

    def take(self, now: float) -> list[ReceiptEntry]:
        """Return what changed since the last call, and count it as passed on."""
        entries = self.entries(self._dirty)
        self._dirty.clear()
        self._urgent = False
        self._sent_at = now
        return entries

    def entries(self, devices: Iterable[DeviceId] | None = None) -> list[ReceiptEntry]:
        """Return the receipts of some devices, or of all, as they travel."""
        return [
            ReceiptEntry(device, receipt.state, receipt.held_bytes, cut_reason(receipt.reason), receipt.signature)
            for device in (self.receipts if devices is None else devices)
            if (receipt := self.receipts[device])
        ]

    def merge(self, entries: Iterable[ReceiptEntry], is_genuine: Callable[[ReceiptEntry], bool]) -> bool:
        """Take receipts that a peer passed on.

        Args:
            entries: the receipts.
            is_genuine: whether a last word is its device's own; asked where it says more than what is known.

        Returns:
            Whether any said more than before.
        """
        changed = False
        for entry in entries:
            receipt = Receipt(cast(ReceiptState, entry.state), entry.held_bytes, entry.reason, entry.signature)
            before = self.receipts.get(entry.device)
            if before is not None and _order(receipt) <= _order(before):
                continue
            if receipt.state not in SIGNED_STATES or is_genuine(entry):
                changed |= self.put(entry.device, receipt)
        return changed


def _order(receipt: Receipt) -> tuple[int, int, str]:
    """Return what the greater of two receipts is told by; a total order, so that the order of merging is nothing."""
    return _RANK[receipt.state], receipt.held_bytes, receipt.reason


def cut_reason(reason: str) -> str:
    """Return so much of a reason as a receipt has room for."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
