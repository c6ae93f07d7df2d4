"""Where a bench without shaped links runs, and with datagrams of how many bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from bench._common import over_loopback, over_namespaces
from common.errors import ConfigError
from lab.loopback import LoopbackSystem
from lab.netns import check_netns
from lab.scenario import LinkFigures, Scenario
from lab.units import parse_rate

UDP_OVER_IPV4_BYTES: Final = 28
"""Headers of a datagram within the MTU."""

_R = TypeVar("_R")


class Case(StrEnum):
    """A namespace for each device with interface pairs between them, or one host; the size is the UDP payload's."""

    NETNS = "netns-1472"
    NETNS_JUMBO = "netns-8972"
    LOOPBACK = "loopback-1472"
    LOOPBACK_JUMBO = "loopback-8972"

    @property
    def datagram_bytes(self) -> int:
        """UDP payload."""
        return int(self.partition("-")[2])

    @property
    def in_namespaces(self) -> bool:
        """Whether each device has its own."""
        return self.startswith("netns")

    def link(self, declared: str) -> LinkFigures:
        """Return a link that nothing shapes.

        Args:
            declared: The rate that it is said to have.

        Raises:
            ConfigError: That is no rate.
        """
        try:
            rate_bps = parse_rate(declared)
        except ValueError as error:
            raise ConfigError(f"--declared: expected {error}") from error
        return LinkFigures(rate_bps, delay_s=0.0, mtu_bytes=self.datagram_bytes + UDP_OVER_IPV4_BYTES)

    def over(self, scenario: Scenario, use: Callable[[LoopbackSystem, Path], Awaitable[_R]]) -> _R:
        """Start a scenario there, use it, and take it down.

        Raises:
            ConfigError: This host makes no namespaces.
            ArborcastError: The system did not come up.
        """
        if not self.in_namespaces:
            return over_loopback(scenario, use)
        check_netns(scenario, None)
        return over_namespaces(scenario, use, emulator=None, shaped=False)
