"""The wiring: store, coordinator, application, socket; from start to a clean stop."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import secrets
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from common.errors import ConfigError, TransportError
from common.limits import MAX_BODY_BYTES
from host.notify import ServiceManager
from server.api.application import create_application
from server.connection import BoundedProtocol
from server.core.tokens import make_token
from server.services.coordinator import Clock, Coordinator
from server.services.secret_files import read_token, write_token
from server.services.store.sqlite import SqliteStore
from server.services.stun import StunResponder
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
    _check_tls(settings)
    _make_directory(settings.state)
    admin_token = _admin_token(settings)
    listener, stun = _bind(settings)
    with contextlib.closing(listener), contextlib.closing(stun) if stun else contextlib.nullcontext():
        store = SqliteStore.open(settings.state / "state.sqlite3", wall=time.time)
        coordinator = Coordinator(store, clock=Clock(), entropy=secrets.token_bytes)
        try:
            await coordinator.start()
            for group in settings.groups:
                await _ensure_group(coordinator, group, settings.state)
            app = create_application(coordinator, admin_token=admin_token, stun=stun)
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
    url = _url(listener, settings)
    manager = ServiceManager(os.environ)

    def on_start() -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, {"url": url, "stun_port": stun_port})
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


def _check_tls(settings: Settings) -> None:
    """Try certificate and key before anything else: uvicorn would end in a traceback."""
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        raise ConfigError(
            f"cannot use the certificate {settings.tls_cert} with the key {settings.tls_key}: {error}"
        ) from error


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


def _url(listener: socket.socket, settings: Settings) -> str:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{port}"


def _make_directory(state: Path) -> None:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the state directory {state}: {error}") from error


def _admin_token(settings: Settings) -> str:
    """Read the administrator's token; make one if it is not the user's to give."""
    if settings.admin_token_file is not None:
        return read_token(settings.admin_token_file)
    path = settings.state / "admin-token"
    if not path.exists():
        write_token(path, make_token("admin", secrets.token_bytes))
    return read_token(path)


async def _ensure_group(coordinator: Coordinator, group: str, state: Path) -> None:
    """Make a group that is missing, and a join token for it if its file is."""
    path = state / f"join-token-{group}"
    if all(known.name != group for known in coordinator.groups()):
        write_token(path, await coordinator.create_group(group))
    elif not path.exists():
        token = coordinator.apply(group, lambda machine, now, wall: machine.add_join_token(now=now, wall=wall))
        await coordinator.settled(group)
        write_token(path, token)


def _write_ready(path: Path, body: Mapping[str, object]) -> None:
    """Write the file in one step: who sees it sees all of it."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(body) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}") from error
