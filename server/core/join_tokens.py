"""The tokens that let devices into a group: how long each is good, for how many, and what it was made for.

An expired token admits nobody from its second on; it is dropped from the record a little later. Times are unix
seconds: they have to mean the same after a restart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.errors import RefusedError
from common.limits import MAX_JOIN_TOKENS
from common.tokens import JOIN_SUBJECT, hash_token, make_token, matches
from server.core.snapshot import JoinTokenRecord

PURGE_SLACK_S: Final = 1.0
"""Seconds between the end of a token and its removal: a clock that was just set does not make the removal hurry."""
_ID_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class JoinTerms:
    """What a join token is good for.

    Attributes:
        expires_s: seconds from now until it is void; None for never.
        uses: how many devices it lets in; None for any number.
        note: what it was made for, in its maker's words.
    """

    expires_s: float | None = None
    uses: int | None = None
    note: str = ""


class JoinTokens:
    """The join tokens of one group.

    Attributes:
        records: what is kept of them, oldest first; the same object until something in it changes.
        due_at: when `purge` has something to do at the latest, monotonic seconds; None for never.
    """

    def __init__(self, entropy: Callable[[int], bytes], records: tuple[JoinTokenRecord, ...] = ()) -> None:
        """Start with none, or with stored ones.

        Args:
            entropy: gives that many random bytes.
            records: what was stored.
        """
        self.records = records
        self.due_at: float | None = None
        self._entropy = entropy

    def add(self, terms: JoinTerms, *, now: float, wall: float) -> str:
        """Make a token; only its hash is kept.

        Raises:
            RefusedError: too-many-join-tokens.
        """
        self.purge(now=now, wall=wall)
        if len(self.records) >= MAX_JOIN_TOKENS:
            raise RefusedError(
                "too-many-join-tokens", f"the group has {MAX_JOIN_TOKENS} join tokens, which is the most"
            )
        token = make_token(JOIN_SUBJECT, self._entropy)
        made = JoinTokenRecord(
            id=id_of(token),
            token_hash=hash_token(token),
            created=wall,
            expires=None if terms.expires_s is None else wall + terms.expires_s,
            uses_left=terms.uses,
            note=terms.note,
        )
        self._replace((*self.records, made), now, wall)
        return token

    def admits(self, token: str, *, wall: float) -> bool:
        """Tell whether a token lets a device enrol, in a time that depends only on their number."""
        return self._find(token, wall) is not None

    def spend(self, token: str, *, now: float, wall: float) -> None:
        """Take note that a device got in by a token.

        Raises:
            RefusedError: bad-token: it admits nobody (any more).
        """
        found = self._find(token, wall)
        if found is None:
            raise RefusedError("bad-token", "the join token is not valid any more")
        if found.uses_left is not None:
            self._change_uses(found, found.uses_left - 1, now, wall)

    def give_back(self, token: str, *, now: float, wall: float) -> None:
        """Undo a use that came to nothing."""
        for found in self.records:
            if matches(token, found.token_hash) and found.uses_left is not None:
                self._change_uses(found, found.uses_left + 1, now, wall)

    def void(self, name: str, *, now: float, wall: float) -> None:
        """Make one token void.

        Raises:
            RefusedError: unknown-join-token.
        """
        others = tuple(found for found in self.records if found.id != name)
        if len(others) == len(self.records):
            raise RefusedError("unknown-join-token", f"the group has no join token with the id {name[:80]!r}")
        self._replace(others, now, wall)

    def void_all(self) -> None:
        """Make every token void."""
        self.records, self.due_at = (), None

    def valid(self, *, wall: float) -> tuple[JoinTokenRecord, ...]:
        """List those that admit devices now, oldest first."""
        return tuple(found for found in self.records if _is_valid(found, wall))

    def purge(self, *, now: float, wall: float) -> bool:
        """Drop those that admit nobody any more; tell whether there were any.

        Args:
            now: monotonic seconds.
            wall: unix seconds at `now`.
        """
        left = tuple(found for found in self.records if not _is_over(found, wall))
        changed = len(left) != len(self.records)
        self._replace(left if changed else self.records, now, wall)
        return changed

    def _find(self, token: str, wall: float) -> JoinTokenRecord | None:
        found: JoinTokenRecord | None = None
        for record in self.records:
            if matches(token, record.token_hash) and _is_valid(record, wall):
                found = record
        return found

    def _change_uses(self, found: JoinTokenRecord, uses: int, now: float, wall: float) -> None:
        changed = found.model_copy(update={"uses_left": uses})
        self._replace(tuple(changed if record is found else record for record in self.records), now, wall)

    def _replace(self, records: tuple[JoinTokenRecord, ...], now: float, wall: float) -> None:
        self.records = records
        ends = [record.expires for record in records if record.expires is not None]
        self.due_at = now + max(min(ends) - wall, 0.0) + PURGE_SLACK_S if ends else None


def id_of(token: str) -> str:
    """Return the name under which a token is listed and made void; nothing is given away by it."""
    return hash_token(token)[:_ID_CHARS]


def _is_over(record: JoinTokenRecord, wall: float) -> bool:
    return record.expires is not None and record.expires <= wall


def _is_valid(record: JoinTokenRecord, wall: float) -> bool:
    return not _is_over(record, wall) and record.uses_left != 0
