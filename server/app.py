"""The wiring: store, coordinator, application, socket; from start to a clean stop."""

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from common.errors import ConfigError, TransportError
from common.fields import encode_key, is_host
from common.limits import MAX_BODY_BYTES
from common.tokens import make_token
from host.notify import ServiceManager
from server.api.application import create_application
from server.connection import BoundedProtocol
from server.services.certificates import check_pair, ensure_certificate, fingerprint_to_pin
from server.services.coordinator import Clock, Coordinator
from server.services.secret_files import read_token, write_token
from server.services.store.sqlite import SqliteStore
from server.services.stun import StunResponder
from server.services.whereabouts import (
    Whereabouts,
    likely_host,
    local_host,
    url_of,
    write_json,
    write_whereabouts,
)
from server.settings import KEEP_ALIVE_S, Settings

_log = logging.getLogger(__name__)
_SHUTDOWN_S = 3
_FREE_PORT_TRIES = 16
"""Free TCP ports that are tried until the UDP port of that number is free as well."""
# A full collection at 10,000 subscribers costs a second; what lives long is frozen after the start.
_GC_THRESHOLDS = (50_000, 20, 1_000)


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by us: its own handlers would end the process by the signal."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the server until SIGTERM or SIGINT.

    Args:
        settings: checked here.
        announce: told the URL once the server listens.

    Raises:
        ConfigError: it cannot start, and why.
    """
    settings.check()
    if settings.tls_cert is not None and settings.tls_key is not None:
        check_pair(settings.tls_cert, settings.tls_key)
    _make_directory(settings.state)
    settings = _with_certificate(settings)
    admin_token = _admin_token(settings)
    reader = _own_token(settings.state / "read-token", "reader")
    listener, stun = _bind(settings)
    with contextlib.closing(listener), contextlib.closing(stun) if stun else contextlib.nullcontext():
        store = SqliteStore.open(settings.state / "state.sqlite3", wall=time.time)
        coordinator = Coordinator(store, clock=Clock(), entropy=secrets.token_bytes)
        try:
            await coordinator.start()
            for group in settings.groups:
                await _ensure_group(coordinator, group, settings.state)
            app = create_application(coordinator, admin_token=admin_token, read_token=reader, stun=stun)
            if stun is not None:
                stun.start()
            await _run(app, listener, settings, announce, None if stun is None else stun.ports[0])
        except TransportError as error:
            raise ConfigError(f"cannot start: {error}") from error
        finally:
            await coordinator.stop()
            await store.close()


async def _run(
    app: FastAPI,
    listener: socket.socket,
    settings: Settings,
    announce: Callable[[str], None],
    stun_port: int | None,
) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=BoundedProtocol,
        timeout_keep_alive=KEEP_ALIVE_S,
        limit_concurrency=settings.max_connections,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=MAX_BODY_BYTES,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    port = listener.getsockname()[1]
    url = url_of("http" if config.ssl is None else "https", settings.host, port)
    manager = ServiceManager(os.environ)

    def on_start() -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        write_whereabouts(settings.state, _whereabouts(settings, port))
        if settings.ready_file is not None:
            write_json(settings.ready_file, {"url": url, "stun_port": stun_port})
        announce(url)
        manager.ready(f"listening on {url}")

    def stop() -> None:
        server.should_exit = True
        manager.stopping()

    server = _Server(config, on_start)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    watch = loop.create_task(manager.keep_watch(lambda: f"listening on {url}"), name="watchdog")
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _with_certificate(settings: Settings) -> Settings:
    """Give a server that uses a certificate of its own that one; it is made at the first start."""
    if not settings.makes_certificate:
        return settings
    here = tuple(name for name in (likely_host(settings.host), socket.gethostname()) if is_host(name))
    certificate, key = ensure_certificate(settings.state, names=here, wanted=settings.tls_names, wall=time.time())
    check_pair(certificate, key)
    return replace(settings, tls_cert=certificate, tls_key=key)


def _bind(settings: Settings) -> tuple[socket.socket, StunResponder | None]:
    """Bind the TCP port, and the UDP ports for STUN; where any TCP port will do, one whose UDP port is free as well."""
    tries = _FREE_PORT_TRIES if settings.port == 0 and settings.stun_port is None else 1
    while True:
        listener = _listen(settings)
        if not settings.stun:
            return listener, None
        host, port = listener.getsockname()[:2]
        try:
            return listener, StunResponder(host, settings.stun_port or port)
        except TransportError as error:
            listener.close()
            tries -= 1
            if not tries:
                raise ConfigError(f"{error}; give another --stun-port, or --no-stun") from error


def _listen(settings: Settings) -> socket.socket:
    """Bind before anything else: a port in use is found out at once, and port 0 becomes a real one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {settings.host}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening from here on: who reads the ready file too early waits instead of being refused.
        listener.listen(2_048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {error}") from error
    return listener


def _make_directory(state: Path) -> None:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the state directory {state}: {error}") from error


def _admin_token(settings: Settings) -> str:
    """Read the administrator's token; make one if it is not the user's to give."""
    if settings.admin_token_file is not None:
        return read_token(settings.admin_token_file)
    return _own_token(settings.state / "admin-token", "admin")


def _own_token(path: Path, subject: str) -> str:
    if not path.exists():
        write_token(path, make_token(subject, secrets.token_bytes))
    return read_token(path)


async def _ensure_group(coordinator: Coordinator, group: str, state: Path) -> None:
    """Make a group that is missing, and a join token for it if its file is."""
    path = state / f"join-token-{group}"
    if all(known.name != group for known in coordinator.groups()):
        write_token(path, await coordinator.create_group(group))
    elif not path.exists():
        token = coordinator.apply(group, lambda machine, now, wall: machine.entrance.add_join_token(now=now, wall=wall))
        await coordinator.settled(group)
        write_token(path, token)


def _whereabouts(settings: Settings, port: int) -> Whereabouts:
    """Say where this server is reached."""
    certificate = settings.tls_cert
    scheme = "http" if certificate is None else "https"
    fingerprint = None if certificate is None else fingerprint_to_pin(certificate)
    return Whereabouts(
        local_url=url_of(scheme, local_host(settings.host), port),
        url=url_of(scheme, likely_host(settings.host, settings.tls_names), port),
        certificate=None if certificate is None else str(certificate.absolute()),
        fingerprint=None if fingerprint is None else encode_key(fingerprint),
    )
