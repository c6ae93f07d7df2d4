"""The last roster, channels and graph from the server, so that an agent started without a server forwards."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from agent.services.identity import write_atomically
from common.errors import DecodeError
from common.ids import ChannelId, DeviceId
from common.messages import (
    Channels,
    ChannelSpec,
    EpochUpdate,
    GraphBody,
    GraphUpdate,
    MtuUpdate,
    NeighboursBody,
    NeighboursUpdate,
    Roster,
    ServerMessage,
    decode_server_message,
    encode_message,
)

log = logging.getLogger(__name__)

_FILE: Final = "server.json"


class LastState:
    """What the server said last of each kind, in memory and on disk.

    Args:
        folder: the agent's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._dirty = False
        self.roster: Roster | None = None
        self.channels: Channels | None = None
        self.graph: GraphUpdate | NeighboursUpdate | None = None
        self.mtu: MtuUpdate | None = None

    def load(self) -> None:
        """Read what an earlier run kept; what cannot be read counts as nothing."""
        try:
            texts = json.loads(self._path.read_bytes())
            messages = [decode_server_message(text) for text in texts]
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, DecodeError) as error:
            log.warning("= the last answers of the server cannot be read: %s", error)
            return
        for message in messages:
            self.note(message)
        self._dirty = False

    def note(self, message: ServerMessage) -> None:
        """Keep a message if it is one that stands until the next of its kind."""
        if isinstance(message, Roster):
            self.roster = message
        elif isinstance(message, Channels):
            self.channels = message
        elif isinstance(message, MtuUpdate):
            self.mtu = message
        elif isinstance(message, GraphUpdate | NeighboursUpdate):
            self.graph = message.model_copy(update={"passed": ()})
        elif isinstance(message, EpochUpdate) and isinstance(self.graph, NeighboursUpdate):
            self.graph = self.graph.model_copy(update={"epoch": message.epoch})
        else:
            return
        self._dirty = True

    def note_answer(self, answer: GraphBody | NeighboursBody) -> None:
        """Keep the answer to a query if it is newer than what stands."""
        if isinstance(answer, GraphBody):
            newer: GraphUpdate | NeighboursUpdate = GraphUpdate(graph=answer)
        else:
            newer = NeighboursUpdate(epoch=answer.epoch, trees=answer.trees)
        if answer.epoch > self.epoch and (self.graph is None or newer.type == self.graph.type):
            self.note(newer)

    @property
    def epoch(self) -> int:
        """The epoch of the graph that stands; 0 where there is none."""
        if isinstance(self.graph, GraphUpdate):
            return self.graph.graph.epoch
        return self.graph.epoch if self.graph else 0

    def messages(self) -> tuple[ServerMessage, ...]:
        """Return what to tell a core that starts: members first, then channels, sizes, the graph."""
        kept = (self.roster, self.channels, self.mtu, self.graph)
        return tuple(message for message in kept if message is not None)

    def members(self) -> tuple[DeviceId, ...]:
        """List the devices of the group as last heard, sorted."""
        return tuple(sorted(entry.device for entry in self.roster.devices)) if self.roster else ()

    def channel(self, name: ChannelId) -> ChannelSpec | None:
        """Return a channel's rules, or None if the group has no such channel."""
        for spec in self.channels.channels if self.channels else ():
            if spec.name == name:
                return spec
        return None

    def save(self) -> None:
        """Write to disk what changed since the last time."""
        if not self._dirty:
            return
        self._dirty = False
        texts = [encode_message(message) for message in self.messages()]
        try:
            write_atomically(self._path, json.dumps(texts).encode())
        except OSError as error:
            log.warning("= the server's answers cannot be kept: %s", error)
