"""Making a join string: a new join token from the server that runs, and what an agent has to know besides."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from common.errors import ConfigError, ConnectError, DecodeError, RefusedError
from common.fields import decode_key
from common.ids import GroupId
from common.join_string import JoinString, encode
from server.services.secret_files import read_token
from server.services.whereabouts import Whereabouts, read_whereabouts

REQUEST_S: Final = 10.0
"""Seconds in which the server has to answer."""


@dataclass(frozen=True, slots=True)
class Order:
    """What kind of join string is wanted.

    Attributes:
        group: the group to join.
        url: the server as agents reach it; None for what the server itself takes for likely.
        expires_s: seconds for which it is good; None for ever.
        uses: how many devices it lets in; None for any number.
        note: what it is for.
    """

    group: GroupId
    url: str | None = None
    expires_s: float | None = None
    uses: int | None = None
    note: str = ""


def make_join_string(
    state: Path, order: Order, admin_token_file: Path | None = None, *, transport: httpx.BaseTransport | None = None
) -> tuple[str, str]:
    """Ask the server that runs for a join token, and wrap it up.

    Args:
        state: the server's state directory.
        order: what is wanted.
        admin_token_file: the administrator's token; that of `state` if None.
        transport: what carries the request in place of the network.

    Returns:
        The join string, and the URL in it.

    Raises:
        ConfigError: there is no such state, or the URL does not fit the server.
        ConnectError: no server answers.
        RefusedError: it refuses.
    """
    here = read_whereabouts(state)
    url = order.url or here.url
    if url.startswith("http:") and here.certificate is not None:
        raise ConfigError(f"the server speaks TLS, so {url} does not lead to it; say https://")
    admin = read_token(admin_token_file or state / "admin-token")
    token = _ask(here, order, admin, transport)
    pinned = here.fingerprint is not None and url.startswith("https:")
    fingerprint = decode_key(here.fingerprint) if pinned and here.fingerprint is not None else None
    try:
        return encode(JoinString(url, order.group, token, fingerprint)), url
    except DecodeError as error:
        raise ConfigError(str(error)) from error


def _ask(here: Whereabouts, order: Order, admin: str, transport: httpx.BaseTransport | None) -> str:
    terms = {"expires_s": order.expires_s, "uses": order.uses, "note": order.note}
    headers = {"Authorization": f"Bearer {admin}"}
    try:
        with httpx.Client(
            base_url=here.local_url,
            verify=_trust(here),
            # The token is not for a proxy: this is the same host.
            trust_env=False,
            timeout=REQUEST_S,
            transport=transport,
        ) as client:
            answer = client.post(f"/v1/groups/{order.group}/join-tokens", headers=headers, json=terms)
    except httpx.TransportError as error:
        raise ConnectError(f"no server answers at {here.local_url}: {str(error) or type(error).__name__}") from error
    try:
        body = json.loads(answer.content)
        if answer.is_success:
            return str(body["join_token"])
        raise RefusedError(str(body["reason"]), str(body["detail"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConnectError(
            f"what answers at {here.local_url} is no server of arborcast (status {answer.status_code})"
        ) from error


def _trust(here: Whereabouts) -> ssl.SSLContext:
    """Trust the server's own certificate and no other, whatever names it holds."""
    if here.certificate is None:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=here.certificate)
    except OSError as error:
        raise ConfigError(f"cannot read the server's certificate {here.certificate}: {error}") from error
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
