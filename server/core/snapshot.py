"""What is stored of a group, so that a restart keeps its members, keys, links and epochs.

A record has three parts that change at different rates. Each part is a frozen object and stays the same object until
something in it changes, so a store writes only the parts that are not the ones it wrote last.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.fields import Epoch, Key, KeyEpoch, Name, TokenHash, Version
from common.messages import Channels, GraphBody, QosFigures, RosterEntry


class Record(BaseModel):
    """What all records share: frozen, no unknown fields, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceRecord(Record):
    """One member: the hash of its token, and of the one to come if it took one; what the roster says about it."""

    token_hash: TokenHash
    next_token_hash: TokenHash | None = None
    entry: RosterEntry


class JoinTokenRecord(Record):
    """One token that lets devices in: its name, its hash, and what it is good for; times in unix seconds."""

    id: str
    token_hash: TokenHash
    created: float
    expires: float | None
    uses_left: int | None = Field(ge=0)
    note: str


class MembersRecord(Record):
    """Who belongs to the group, what proves it, the group keys by key epoch, and the channels."""

    devices: tuple[DeviceRecord, ...]
    join_tokens: tuple[JoinTokenRecord, ...]
    key_epoch: KeyEpoch
    group_keys: dict[KeyEpoch, Key]
    roster_version: Version
    channels: Channels

    @model_validator(mode="before")
    @classmethod
    def _read_first_form(cls, stored: Any) -> Any:
        """Read the form of version 0.1, which kept of a join token its hash alone."""
        hashes = stored.get("join_token_hashes") if isinstance(stored, dict) else None
        if not isinstance(hashes, list | tuple) or not all(isinstance(found, str) for found in hashes):
            return stored
        known = {"created": 0.0, "expires": None, "uses_left": None, "note": ""}
        tokens = [{"id": found[:16], "token_hash": found, **known} for found in hashes]
        others = {name: value for name, value in stored.items() if name != "join_token_hashes"}
        return {**others, "join_tokens": tokens}


class KeptGraph(Record):
    """One epoch; `superseded_wall` in unix seconds, None for the current one."""

    graph: GraphBody
    superseded_wall: float | None


class GraphsRecord(Record):
    """The last epochs, oldest first, the last one current; the highest epoch that any device claimed to have seen."""

    kept: tuple[KeptGraph, ...] = Field(min_length=1)
    highest_seen: Epoch


class DeviceLinks(Record):
    """What one device last reported."""

    peers: tuple[Name, ...]
    figures: dict[Name, QosFigures]


class LinksRecord(Record):
    """What every device last reported."""

    devices: dict[Name, DeviceLinks]


class GroupRecord(Record):
    """Everything that is stored of one group."""

    name: Name
    members: MembersRecord
    graphs: GraphsRecord
    links: LinksRecord
