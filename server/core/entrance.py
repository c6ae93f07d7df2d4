"""Who gets into a group: the join tokens that let devices in, and the change of the tokens that prove them.

A part of `group`: each change here is an event of the group, stored before anything that follows from it leaves.
"""

from collections.abc import Callable

from common.errors import RefusedError
from common.ids import DeviceId
from common.messages import DeviceToken
from server.core.join_tokens import JoinTerms
from server.core.members import Members
from server.core.snapshot import JoinTokenRecord


class Entrance:
    """The tokens of one group."""

    def __init__(self, members: Members, note: Callable[[float, float], None], count: Callable[[str], None]) -> None:
        """Stand before a group.

        Args:
            members: who belongs to it.
            note: has the state stored; called with monotonic and unix seconds.
            count: counts an event of a kind.
        """
        self._members = members
        self._note = note
        self._count = count

    def check(self, token: str, *, wall: float) -> None:
        """Refuse a join token that lets nobody in.

        Raises:
            RefusedError: bad-token.
        """
        if not self.admits(token, wall=wall):
            raise RefusedError("bad-token", "the join token is not valid any more")

    def rotate_token(self, device: DeviceId, token_hash: str | None, *, now: float, wall: float) -> DeviceToken:
        """Let a member have another token. The answer must not leave before `poll_record()` is stored.

        Args:
            device: the member; its token is good until the new one is first used.
            token_hash: of the token that it made for itself; None to make it one.
            now: monotonic seconds.
            wall: unix seconds at `now`.

        Raises:
            RefusedError: unknown-device.
        """
        token = self._members.rotate(device, token_hash)
        self._count("token_rotations")
        self._note(now, wall)
        return DeviceToken(device=device, token=token)

    def confirm_token(self, token: str, *, now: float, wall: float) -> None:
        """Make a member's old token void if this is its next one: it has come into use."""
        if self._members.confirm(token):
            self._note(now, wall)

    def add_join_token(self, terms: JoinTerms | None = None, *, now: float, wall: float) -> str:
        """Make one more token that lets devices enrol.

        Raises:
            RefusedError: too-many-join-tokens.
        """
        token = self._members.join_tokens.add(terms or JoinTerms(), now=now, wall=wall)
        self._note(now, wall)
        return token

    def give_back_join(self, token: str, *, now: float, wall: float) -> None:
        """Undo the use of a join token by an enrolment that came to nothing."""
        self._members.join_tokens.give_back(token, now=now, wall=wall)
        self._note(now, wall)

    def void_join_token(self, name: str | None, *, now: float, wall: float) -> None:
        """Make one join token void, or all of them; members stay.

        Args:
            name: its id; None for all.
            now: monotonic seconds.
            wall: unix seconds at `now`.

        Raises:
            RefusedError: unknown-join-token.
        """
        if name is None:
            self._members.join_tokens.void_all()
        else:
            self._members.join_tokens.void(name, now=now, wall=wall)
        self._note(now, wall)

    def awaits_token(self, device: DeviceId) -> bool:
        """Tell whether a member has taken a token that it has not used yet; see `confirm_token`."""
        return self._members.awaits(device)

    def admits(self, token: str, *, wall: float) -> bool:
        """Tell whether a token lets a device enrol."""
        return self._members.join_tokens.admits(token, wall=wall)

    def join_tokens(self, *, wall: float) -> tuple[JoinTokenRecord, ...]:
        """List the join tokens that are valid, oldest first."""
        return self._members.join_tokens.valid(wall=wall)
