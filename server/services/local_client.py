"""Requests to the server that runs, from a command on the same host."""

import ssl

import httpx

from common.errors import ConfigError, ConnectError
from server.services.whereabouts import Whereabouts


def request(
    here: Whereabouts,
    method: str,
    path: str,
    *,
    timeout: float,
    headers: dict[str, str] | None = None,
    body: object = None,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Response:
    """Ask the server that runs.

    Args:
        here: where it is.
        method: of the request.
        path: of the request.
        timeout: seconds in which it has to answer.
        headers: of the request.
        body: what is sent as JSON; nothing if None.
        transport: what carries the request in place of the network.

    Raises:
        ConfigError: its certificate cannot be read.
        ConnectError: no server answers.
    """
    try:
        with httpx.Client(
            base_url=here.local_url,
            verify=_trust(here),
            # A token is not for a proxy: this is the same host.
            trust_env=False,
            timeout=timeout,
            transport=transport,
        ) as client:
            return client.request(method, path, headers=headers, json=body)
    except httpx.TransportError as error:
        raise ConnectError(f"no server answers at {here.local_url}: {str(error) or type(error).__name__}") from error


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
