"""The members of a group: who they are, what proves it, the group keys, and the channels they share."""

from collections.abc import Callable

from common.errors import RefusedError
from common.fields import KEY_BYTES, encode_key
from common.ids import ChannelId, DeviceId
from common.limits import GROUP_KEYS_KEPT, MAX_CHANNELS, MAX_DEVICES_PER_GROUP, MAX_EPOCH
from common.messages import CandidatesReport, Channels, ChannelSpec, Enrolment, Roster, RosterEntry
from common.tokens import hash_token, make_token, matches, matches_any, subject_of
from server.core.join_tokens import JoinTokens
from server.core.snapshot import DeviceRecord, MembersRecord

DEFAULT_CHANNELS = (ChannelSpec(name="files", kind="file"), ChannelSpec(name="messages", kind="message"))


class Members:
    """Devices, tokens, group keys and channels; each change raises the version of what it changes.

    Attributes:
        join_tokens: what lets devices in.
        channels: the group's services.
    """

    def __init__(
        self,
        *,
        wall: float,
        entropy: Callable[[int], bytes],
        stored: MembersRecord | None = None,
        channels: tuple[ChannelSpec, ...] = DEFAULT_CHANNELS,
    ) -> None:
        """Start a new group, or take up a stored one.

        Args:
            wall: unix seconds.
            entropy: gives that many random bytes, for tokens and group keys.
            stored: what was stored; None for a new group.
            channels: the channels of a new group.
        """
        self._entropy = entropy
        self._devices: dict[DeviceId, DeviceRecord] = {}
        self.join_tokens = JoinTokens(entropy, () if stored is None else stored.join_tokens)
        self._roster: Roster | None = None
        self._record: MembersRecord | None = stored
        if stored is None:
            self._key_epoch = 0
            self._keys: dict[int, str] = {}
            self._roster_version = int(wall * 1e6)
            self.channels = Channels(version=int(wall * 1e6), channels=_ordered(channels))
            self._new_key(wall)
        else:
            self._devices = {device.entry.device: device for device in stored.devices}
            self._key_epoch = stored.key_epoch
            self._keys = dict(stored.group_keys)
            self._roster_version = stored.roster_version
            self.channels = stored.channels

    def __contains__(self, device: object) -> bool:
        """Tell whether a device is a member."""
        return device in self._devices

    def devices(self) -> tuple[DeviceId, ...]:
        """List the members, sorted."""
        return tuple(sorted(self._devices))

    def entry(self, device: DeviceId) -> RosterEntry:
        """Give what the roster says about a member.

        Raises:
            RefusedError: unknown-device.
        """
        self.check(device)
        return self._devices[device].entry

    def check(self, device: DeviceId) -> None:
        """Refuse a device that is not a member.

        Raises:
            RefusedError: unknown-device.
        """
        if device not in self._devices:
            raise RefusedError("unknown-device", f"{device[:80]!r} is not a member of the group")

    def enrol(self, enrolment: Enrolment, *, wall: float, replaces: bool) -> str | None:
        """Make a device a member.

        Args:
            enrolment: its id and public keys, and the hash of its token if it made that itself.
            wall: unix seconds.
            replaces: the request proved that it comes from the member of that id, whose key and token it replaces.

        Returns:
            The token made for the device, of which only the hash is kept; None if it has its own.

        Raises:
            RefusedError: device-exists, key-taken, or group-full.
        """
        device = enrolment.device
        known = self._devices.get(device)
        if known is not None and not replaces:
            raise RefusedError(
                "device-exists", f"the group has a device {device!r} already; use its token, or evict it"
            )
        for other, record in self._devices.items():
            taken = record.entry.public_key == enrolment.public_key, record.entry.signing_key == enrolment.signing_key
            if other != device and any(taken):
                raise RefusedError("key-taken", f"device {other!r} has this public key; every device makes its own")
        if known is None and len(self._devices) >= MAX_DEVICES_PER_GROUP:
            raise RefusedError(
                "group-full", f"the group has {MAX_DEVICES_PER_GROUP} devices, which is the most it may have"
            )
        token, token_hash = self._token_for(device, enrolment.token_hash)
        entry = RosterEntry(device=device, public_key=enrolment.public_key, signing_key=enrolment.signing_key)
        if known is not None:
            entry = known.entry.model_copy(update={"public_key": entry.public_key, "signing_key": entry.signing_key})
        self._devices[device] = DeviceRecord(token_hash=token_hash, entry=entry)
        self._roster_changed(wall)
        return token

    def rotate(self, device: DeviceId, token_hash: str | None) -> str | None:
        """Let a member have another token; the one that it has stays good until `confirm` is told of the other.

        Args:
            device: the member.
            token_hash: of the token that it made for itself; None to make it one.

        Returns:
            The token made for it; None if it has its own.

        Raises:
            RefusedError: unknown-device.
        """
        self.check(device)
        token, hashed = self._token_for(device, token_hash)
        self._put(self._devices[device].model_copy(update={"next_token_hash": hashed}))
        return token

    def awaits(self, device: DeviceId) -> bool:
        """Tell whether a member has taken a token that it has not used yet."""
        return self._devices[device].next_token_hash is not None

    def confirm(self, token: str) -> bool:
        """Make the token before void if this is a member's next one; tell whether it is."""
        known = self._devices.get(subject_of(token))
        if known is None or known.next_token_hash is None or not matches(token, known.next_token_hash):
            return False
        self._put(known.model_copy(update={"token_hash": known.next_token_hash, "next_token_hash": None}))
        return True

    def evict(self, device: DeviceId, *, wall: float) -> None:
        """Remove a member: its token is void, and the rest get a new group key.

        Raises:
            RefusedError: unknown-device.
        """
        self.check(device)
        del self._devices[device]
        self._new_key(wall)

    def set_candidates(self, device: DeviceId, report: CandidatesReport, *, wall: float) -> bool:
        """Replace what a member says of its addresses; tell whether it differs from before."""
        known = self._devices[device]
        entry = known.entry.model_copy(update={"candidates": report.candidates, "mapping": report.mapping})
        if entry == known.entry:
            return False
        self._put(known.model_copy(update={"entry": entry}))
        self._roster_changed(wall)
        return True

    def authenticate(self, token: str) -> DeviceId | None:
        """Tell which member a token proves, by the one that it has or the next; None if none."""
        known = self._devices.get(subject_of(token))
        if known is None:
            return None
        hashes = (known.token_hash, known.next_token_hash or known.token_hash)
        return known.entry.device if matches_any(token, hashes) else None

    def put_channel(self, spec: ChannelSpec, *, wall: float) -> bool:
        """Add a channel, or replace the one of that name; tell whether anything changed.

        Raises:
            RefusedError: too-many-channels.
        """
        others = tuple(channel for channel in self.channels.channels if channel.name != spec.name)
        if len(others) >= MAX_CHANNELS:
            raise RefusedError("too-many-channels", f"the group has {MAX_CHANNELS} channels, which is the most")
        if spec in self.channels.channels:
            return False
        self._set_channels((*others, spec), wall)
        return True

    def delete_channel(self, name: ChannelId, *, wall: float) -> None:
        """Remove a channel.

        Raises:
            RefusedError: unknown-channel.
        """
        others = tuple(channel for channel in self.channels.channels if channel.name != name)
        if len(others) == len(self.channels.channels):
            raise RefusedError("unknown-channel", f"the group has no channel {name[:80]!r}")
        self._set_channels(others, wall)

    def roster(self) -> Roster:
        """Give the roster; the same object until something in it changes."""
        if self._roster is None:
            self._roster = Roster(
                version=self._roster_version,
                devices=tuple(self._devices[device].entry for device in sorted(self._devices)),
                key_epoch=self._key_epoch,
                group_keys=self._keys,
            )
        return self._roster

    def record(self) -> MembersRecord:
        """Give what has to be stored; the same object until something in it changes."""
        if self._record is None or self._record.join_tokens != self.join_tokens.records:
            self._record = MembersRecord(
                devices=tuple(self._devices[device] for device in sorted(self._devices)),
                join_tokens=self.join_tokens.records,
                key_epoch=self._key_epoch,
                group_keys=self._keys,
                roster_version=self._roster_version,
                channels=self.channels,
            )
        return self._record

    def _token_for(self, device: DeviceId, token_hash: str | None) -> tuple[str | None, str]:
        """Give the token to tell a member, None if it made its own, and the hash to keep."""
        if token_hash is not None:
            return None, token_hash
        token = make_token(device, self._entropy)
        return token, hash_token(token)

    def _put(self, record: DeviceRecord) -> None:
        self._devices[record.entry.device] = record
        self._record = None

    def _new_key(self, wall: float) -> None:
        self._key_epoch += 1
        keys = {**self._keys, self._key_epoch: encode_key(self._entropy(KEY_BYTES))}
        self._keys = {epoch: keys[epoch] for epoch in sorted(keys)[-GROUP_KEYS_KEPT:]}
        self._roster_changed(wall)

    def _set_channels(self, channels: tuple[ChannelSpec, ...], wall: float) -> None:
        self.channels = Channels(version=_next_version(self.channels.version, wall), channels=_ordered(channels))
        self._record = None

    def _roster_changed(self, wall: float) -> None:
        self._roster_version = _next_version(self._roster_version, wall)
        self._roster = None
        self._record = None


def _next_version(version: int, wall: float) -> int:
    """Grow like an epoch: also through lost state."""
    return min(max(version + 1, int(wall * 1e6)), MAX_EPOCH)


def _ordered(channels: tuple[ChannelSpec, ...]) -> tuple[ChannelSpec, ...]:
    return tuple(sorted(channels, key=lambda channel: channel.name))
