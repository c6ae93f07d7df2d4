"""Who wrote what: the members' signing keys, and this device's own signatures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from agent.core.events import Receipt
from agent.core.receipts import cut_reason
from common.fields import decode_key
from common.ids import DeviceId, GroupId
from common.messages import Roster
from common.opening import Opening
from common.signing import PURPOSE_RECEIPT, Signer, Verifier
from common.stream_frames import ReceiptEntry


class Authors:
    """Knows the signing keys of the group's members.

    Args:
        device: this device.
        group: its group.
        signer: signs as this device.
        drops: counts what was dropped, by reason.
    """

    def __init__(self, device: DeviceId, group: GroupId, signer: Signer, drops: Counter[str]) -> None:
        self.signer = signer
        self._device = device
        self._group = group
        self._drops = drops
        self._keys: dict[DeviceId, bytes] = {}

    def set_roster(self, roster: Roster) -> None:
        """Take the members' keys."""
        self._keys = {entry.device: decode_key(entry.signing_key) for entry in roster.devices}

    def vouch_for(self, opening: Opening) -> bool:
        """Tell whether an opening, whose signature was verified, is signed by the member that it calls its source."""
        key = self._keys.get(opening.source)
        if key is None:
            # A new member, or an old one: the next roster tells, and the opening is asked for again.
            self._drops["opening-of-stranger"] += 1
        elif key != opening.signer:
            self._drops["opening-forged"] += 1
        return key == opening.signer

    def verifier(self, opening: Opening) -> Verifier:
        """Return what verifies a stream's signatures."""
        return Verifier(opening.signer, self._group)

    def last_word(self, stream: bytes, receipt: Receipt) -> ReceiptEntry:
        """Return this device's last word about a stream (its 16-byte id) as it travels, signed."""
        entry = ReceiptEntry(self._device, receipt.state, receipt.held_bytes, cut_reason(receipt.reason))
        return replace(entry, signature=self.signer.sign(PURPOSE_RECEIPT, entry.statement(stream)))

    def is_genuine(self, stream: bytes, entry: ReceiptEntry) -> bool:
        """Tell whether a last word about a stream (its 16-byte id) is that of the device it names."""
        key = self._keys.get(entry.device)
        statement = entry.statement(stream)
        if key is None or not Verifier(key, self._group).is_signed(PURPOSE_RECEIPT, statement, entry.signature):
            self._drops["receipt-forged"] += 1
            return False
        return True
