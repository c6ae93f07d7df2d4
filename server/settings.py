"""What the command line settles before the server starts."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.ids import GroupId, check_id

MAX_HEAD_BYTES = 32_768
"""Bytes of a request's first line and headers."""
READ_HEAD_S = 10.0
"""Seconds in which they have to come."""
KEEP_ALIVE_S = 10
"""Seconds for which a connection without a request stays open."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run the server.

    Attributes:
        state: the directory of the database and the tokens; made if missing, mode 0700.
        host: the address to listen on.
        port: the TCP port; 0 for any free one.
        admin_token_file: where the administrator's token is; None for `admin-token` in `state`, made if missing.
        groups: groups to make if they are missing; each one's join token goes to `join-token-GROUP` in `state`.
        ready_file: a file that gets {"url": …, "stun_port": …} as JSON once the server listens.
        insecure_http: plain HTTP on an address that others can reach is wanted.
        tls_cert: a certificate chain in PEM; None for plain HTTP.
        tls_key: its key in PEM.
        max_connections: connections at a time, subscribers included; beyond it they are closed at once.
        stun: whether to answer STUN, so that agents learn their addresses as others see them.
        stun_port: the first UDP port of that, the next one is the other; None for the number of the TCP port.
    """

    state: Path
    host: str = "127.0.0.1"
    port: int = 8640
    admin_token_file: Path | None = None
    groups: tuple[GroupId, ...] = ()
    ready_file: Path | None = None
    insecure_http: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_connections: int = 20_000
    stun: bool = True
    stun_port: int | None = None

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            ConfigError: what is wrong, and what to do about it.
        """
        for group in self.groups:
            check_id(group, "group")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port {self.port} is not between 0 and 65535")
        if self.stun_port is not None and not 1 <= self.stun_port <= 65_535:
            raise ConfigError(f"STUN port {self.stun_port} is not between 1 and 65535")
        if self.stun_port is not None and not self.stun:
            raise ConfigError("--stun-port and --no-stun contradict each other")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together")
        if self.tls_cert is None and not self.insecure_http and not is_loopback(self.host):
            raise ConfigError(
                f"plain HTTP on {self.host} would show every token to the network; "
                "give --tls-cert and --tls-key, or --insecure-http if something in front does TLS"
            )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
