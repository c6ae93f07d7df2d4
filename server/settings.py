"""What the command line settles before the server starts."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from common.errors import ConfigError
from common.fields import is_host
from common.ids import GroupId, check_id
from common.limits import MAX_JOIN_EXPIRY_S, MAX_TLS_NAMES, MAX_URL_CHARS

MAX_HEAD_BYTES = 32_768
"""Bytes of a request's first line and headers."""
READ_HEAD_S = 10.0
"""Seconds in which they have to come."""
KEEP_ALIVE_S = 10
"""Seconds for which a connection without a request stays open."""

_SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


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
        tls_cert: a certificate chain in PEM; None for one of the server's own, or plain HTTP.
        tls_key: its key in PEM.
        self_signed: use a certificate of the server's own, on an address of this machine alone, too.
        tls_names: further host names and addresses for that certificate.
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
    self_signed: bool = False
    tls_names: tuple[str, ...] = ()
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
        self._check_tls()

    @property
    def makes_certificate(self) -> bool:
        """Whether the server uses a certificate of its own: where others can reach it, unless plain HTTP is wanted."""
        if self.tls_cert is not None:
            return False
        return self.self_signed or not (self.insecure_http or is_loopback(self.host))

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together")
        if self.self_signed and self.tls_cert is not None:
            raise ConfigError("--self-signed and --tls-cert contradict each other")
        if self.self_signed and self.insecure_http:
            raise ConfigError("--self-signed and --insecure-http contradict each other")
        if self.tls_names and not self.makes_certificate:
            raise ConfigError("--tls-name is for the server's own certificate, and it uses none; see --self-signed")
        if len(self.tls_names) > MAX_TLS_NAMES:
            raise ConfigError(f"{len(self.tls_names)} names for the certificate; at most {MAX_TLS_NAMES} are allowed")
        for name in self.tls_names:
            if not is_host(name):
                raise ConfigError(f"--tls-name {name[:80]!r} is neither a host name nor an address")


def parse_span(text: str) -> float | None:
    """Read how long something is good, such as ``24h`` or ``7d``.

    Returns:
        Seconds; None for ``never``, which is for ever.

    Raises:
        ConfigError: it is neither, or longer than MAX_JOIN_EXPIRY_S.
    """
    if text == "never":
        return None
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match is not None else 0
    if not 0 < seconds <= MAX_JOIN_EXPIRY_S:
        raise ConfigError(
            f"{text[:80]!r} is not a time with s, m, h or d, such as 24h, of at most"
            f" {MAX_JOIN_EXPIRY_S / _UNITS['d']:.0f}d, nor 'never'"
        )
    return float(seconds)


def check_url(url: str) -> str:
    """Return the URL under which agents reach the server, or refuse it.

    Raises:
        ConfigError: it is not ``http(s)://host[:port]``.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    usable = parts.scheme in ("http", "https") and host is not None and is_host(host) and parts.username is None
    if not usable or parts.path.strip("/") or parts.query or parts.fragment or len(url) > MAX_URL_CHARS:
        raise ConfigError(f"{url[:80]!r} is not a URL such as https://tree.example.org:8640")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
