"""What the parts of the shell need of each other, so that each can be tried alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from agent.core.events import Address, ControlFailed, ControlRequest, Event, OpenSocket, Transmit
from agent.core.silences import Arrivals
from agent.core.store import PieceReader
from common.messages import GraphBody, NeighboursBody, ServerMessage

ControlInput: TypeAlias = ServerMessage | NeighboursBody | GraphBody | ControlFailed


class Core(Protocol):
    """What the driver needs of `agent.core.node.Node`, where each method is documented."""

    def receive_datagrams(self, batch: Sequence[tuple[bytes, Address]], *, socket: int = 0, now: float) -> None:
        """Take what one socket brought."""

    def on_unreachable(self, address: Address, *, now: float) -> None:
        """Hear that nobody is reached at an address."""

    def receive_control(self, message: ControlInput, *, now: float) -> None:
        """Take what the server said or failed to say."""

    def control_connected(self, *, now: float) -> None:
        """Hear that the subscription is up."""

    def control_lost(self, *, now: float) -> None:
        """Hear that the subscription is down."""

    def socket_opened(self, request: OpenSocket, socket: int, port: int, *, now: float) -> None:
        """Hear of a socket that was asked for."""

    def set_candidates(self, candidates: Iterable[Address], *, now: float) -> None:
        """Take the addresses at which the shared socket is reached."""

    def set_stun_servers(self, servers: Iterable[Address], *, now: float) -> None:
        """Take the numeric addresses of STUN servers."""

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due."""

    def poll_transmit(self, *, now: float) -> list[Transmit]:
        """Return what may be sent now."""

    def poll_control(self) -> ControlRequest | None:
        """Return a request for the server."""

    def poll_event(self) -> Event | None:
        """Return news."""

    def poll_timeout(self) -> float | None:
        """Return when `handle_timeout` is due."""

    def send_file(self, channel: str, name: str, size_bytes: int, reader: PieceReader, *, now: float) -> str:
        """Begin to send a file and return its stream."""

    def publish(self, channel: str, payload: bytes, *, now: float) -> tuple[str, int]:
        """Publish a message and return its stream and number."""

    def settling(self, *, now: float) -> bool:
        """Tell whether it is worth a moment's wait to open a stream."""

    def cancel(self, stream: str, reason: str = ..., *, now: float) -> None:
        """Take a stream back."""

    def leave(self, *, now: float) -> None:
        """Tell the peers that this device goes."""

    def status(self, *, now: float) -> Any:
        """Return a report that can be written as JSON."""

    def arrivals(self) -> Mapping[str, Arrivals]:
        """Return when each stream brought something new."""


class Sockets(Protocol):
    """What the driver needs of `agent.services.endpoint.Endpoint`."""

    @property
    def congested(self) -> bool:
        """Whether the kernel takes no more now."""

    def open(self, port: int = 0) -> tuple[int, int]:
        """Bind one more socket and return its number and port."""

    def send(self, number: int, address: Address, datagrams: Sequence[bytes]) -> None:
        """Send a train."""


class Listener(Protocol):
    """Who is told what the server says."""

    def receive_control(self, message: ControlInput) -> None:
        """Take what the server said or failed to say."""

    def control_connected(self) -> None:
        """Hear that the subscription is up."""

    def control_lost(self) -> None:
        """Hear that the subscription is down."""
