"""What is stored of a group, so that a restart keeps its members, keys, links and epochs.

A record has three parts that change at different rates. Each part is a frozen object and stays the same object until
something in it changes, so a store writes only the parts that are not the ones it wrote last.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from common.fields import Epoch, Key, KeyEpoch, Name, Version
from common.messages import Channels, GraphBody, QosFigures, RosterEntry


class Record(BaseModel):
    """What all records share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


TokenHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DeviceRecord(Record):
    """One member: the hash of its token, and what the roster says about it."""

    token_hash: TokenHash
    entry: RosterEntry


class MembersRecord(Record):
    """Who belongs to the group, what proves it, the group keys by key epoch, and the channels."""

    devices: tuple[DeviceRecord, ...]
    join_token_hashes: tuple[TokenHash, ...]
    key_epoch: KeyEpoch
    group_keys: dict[KeyEpoch, Key]
    roster_version: Version
    channels: Channels


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
