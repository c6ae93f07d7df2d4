"""Where a server is reached and by which certificate: a file in its state directory, for the commands beside it."""

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from common.errors import ConfigError
from common.fields import Key
from common.messages import Message, describe

FILE: Final = "server.json"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not listened on
# Addresses for documentation (RFC 5737, RFC 3849): the way there is the way out, and nothing is sent.
_OUTSIDE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


class Whereabouts(Message):
    """What `server.json` holds."""

    local_url: str = Field(description="the server as this host reaches it")
    url: str = Field(description="the server as agents are likely to reach it")
    certificate: str | None = Field(description="the path of its certificate; null without TLS")
    fingerprint: Key | None = Field(
        description="SHA-256 of the certificate, in base64; null where an authority vouches for it, and without TLS"
    )


def url_of(scheme: str, host: str, port: int) -> str:
    """Write a URL; an IPv6 address gets its brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def local_host(host: str) -> str:
    """Return the address by which this host reaches a server that listens on an address."""
    return _WILDCARDS.get(host, host)


def likely_host(host: str, names: tuple[str, ...] = ()) -> str:
    """Return the name or address by which others are likely to reach a server.

    Args:
        host: the address that it listens on.
        names: the names of its own certificate.
    """
    if names:
        return names[0]
    return outward_address() or socket.gethostname() if host in _WILDCARDS else host


def outward_address() -> str | None:
    """Return this host's address on its way out to others; None if it has no such way."""
    for family, target in _OUTSIDE:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as raw:
            try:
                raw.connect((target, 9))
            except OSError:
                continue
            return str(raw.getsockname()[0])
    return None


def write_whereabouts(state: Path, found: Whereabouts) -> None:
    """Write the file in one step.

    Raises:
        ConfigError: it cannot be written.
    """
    write_json(state / FILE, found.model_dump())


def read_whereabouts(state: Path) -> Whereabouts:
    """Read what the last server with this state directory wrote.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    path = state / FILE
    try:
        return Whereabouts.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"no server has run with the state directory {state}; start one with `arborcast-server run --state {state}`"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is not what a server wrote: {describe(error)}") from error


def write_json(path: Path, body: object) -> None:
    """Write a file in one step: who sees it sees all of it.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(body) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}") from error
