"""One running agent: the core, its sockets, its server, its commands, and how all of that ends."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from agent.api.local import LocalAgent
from agent.api.serve import ApiServer, bind_control_socket, make_api
from agent.core.config import NodeConfig
from agent.core.events import (
    Address,
    ControlFailed,
    Event,
    GraphChanged,
    LinkChanged,
    MessageGap,
    MessageReceived,
)
from agent.core.node import Node
from agent.services.boots import this_boot
from agent.services.control import ControlClient
from agent.services.control_rest import RestClient, WrongServer
from agent.services.discovery import Discovery
from agent.services.disk_store import RETENTION_BYTES, DiskStores
from agent.services.driver import Driver
from agent.services.endpoint import Endpoint, default_host
from agent.services.identity import Identity, StateFolder, write_atomically
from agent.services.inbox import Cursors, Inbox
from agent.services.last_state import LastState
from agent.services.ledger import Ledger
from agent.services.ports import ControlInput
from agent.services.rotation import TokenRotation
from agent.settings import AgentSettings, is_loopback
from common.addresses import write_address
from common.errors import ConfigError, RefusedError, TransportError
from common.ids import ChannelId
from common.messages import GraphBody, NeighboursBody
from host.notify import ServiceManager

log = logging.getLogger(__name__)

SAVE_S: Final = 0.25
"""Seconds until the server's answers are on disk: a burst of pushes is one write, and a crash loses little."""
RESOLVE_S: Final = 10.0
"""Seconds in which a host name has to have an address."""
_GC_THRESHOLDS: Final = (50_000, 20, 1_000)


class Attachment:
    """Passes on what the server says to the core, and keeps what has to outlive the agent.

    Args:
        driver: feeds the core.
        last: what the server said last.
        on_attached: called whenever the server has taken this device's subscription.
    """

    def __init__(self, driver: Driver, last: LastState, on_attached: Callable[[], None] = lambda: None) -> None:
        self._driver = driver
        self._on_attached = on_attached
        self._last = last
        self._saving: asyncio.TimerHandle | None = None

    def receive_control(self, message: ControlInput) -> None:
        """Keep a message, then feed it."""
        if isinstance(message, GraphBody | NeighboursBody):
            self._last.note_answer(message)
        elif not isinstance(message, ControlFailed):
            self._last.note(message)
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_S, self.save)
        try:
            self._driver.receive_control(message)
        except Exception:
            # A mistake of ours about one message is no reason to take the device off the tree.
            log.exception("< the core failed at %s", type(message).__name__)

    def control_connected(self) -> None:
        """Feed that the subscription is up."""
        log.info("= attached to the server")
        self._on_attached()
        self._driver.control_connected()

    def control_lost(self) -> None:
        """Feed that the subscription is down."""
        self._driver.control_lost()

    def save(self) -> None:
        """Put on disk what changed."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        self._last.save()


class Agent:
    """The parts of one agent, wired.

    Args:
        settings: what it was started with, host names resolved.
        folder: its state, held.
    """

    def __init__(self, settings: AgentSettings, folder: StateFolder) -> None:
        self._settings = settings
        self._folder = folder
        self._identity = folder.load_identity(settings.group, settings.device)
        self._kept = self._identity
        self._stop = asyncio.Event()
        self._manager = ServiceManager(os.environ)
        self._failure: RefusedError | TransportError | None = None
        self._last = LastState(folder.path)
        self._last.load()
        wall = time.time()
        self._stores = DiskStores(
            folder.path,
            settings.receive.absolute(),
            wall=wall,
            quota_bytes=settings.quota_bytes,
            stream_bytes=settings.stream_memory_bytes,
            retention_bytes=self._retention_bytes,
            boot=this_boot(),
        )
        rng = random.Random(secrets.randbits(64))
        self._endpoint = Endpoint(
            *(settings.listen or (default_host(), 0)),
            on_batch=lambda batch, number: self._driver.receive_batch(batch, number),
            on_room=lambda: self._driver.drain(),
            on_unreachable=lambda address: self._driver.on_unreachable(address),
        )
        try:
            node = Node(
                self._node_config(),
                stores=self._stores,
                rng=random.Random(rng.getrandbits(64)),
                entropy=secrets.token_bytes,
                now=asyncio.get_running_loop().time(),
                wall=wall,
            )
            self._driver = Driver(
                node,
                on_event=self._on_event,
                on_request=lambda request: self._control.request(request),
            )
            self._attachment = Attachment(self._driver, self._last, self._remember_server)
            loopback = is_loopback(urlsplit(settings.server).hostname or "")
            self._discovery = Discovery(self._driver, self._endpoint.address, settings.stun_servers, loopback=loopback)
            rest = RestClient(
                settings.server,
                self._identity.at(settings.server, settings.fingerprint),
                loopback=loopback,
                ca_file=settings.ca_file,
                fingerprint=settings.fingerprint,
            )
            self._control = ControlClient(
                settings.server,
                rest,
                listener=self._attachment,
                rng=rng,
                loopback=loopback,
                ca_file=settings.ca_file,
                fingerprint=settings.fingerprint,
                rotation=TokenRotation(rest, keep=self._keep, rng=rng, wall=time.time, entropy=secrets.token_bytes),
            )
        except BaseException:
            self._endpoint.close()
            raise
        self._inbox = Inbox()
        self._ledger = Ledger(settings.device)
        self._local = LocalAgent(
            device=settings.device,
            driver=self._driver,
            ledger=self._ledger,
            inbox=self._inbox,
            cursors=Cursors(folder.path),
            last=self._last,
            shell_status=self._shell_status,
        )

    async def run(self) -> None:
        """Run until a signal comes or the server refuses this device.

        Raises:
            RefusedError: the server refuses this device.
            TransportError: its token cannot be kept.
            ConfigError: the device is not enrolled and has no join token, or the control socket cannot be bound.
        """
        try:
            if self._identity.token is None and self._settings.join_token is None:
                raise ConfigError(
                    f"device {self._settings.device!r} is not enrolled yet; it needs --join or --join-token-file"
                )
            bound = bind_control_socket(self._settings.control_socket)
            with self._signals():
                await self._serve(bound)
        finally:
            await self._close()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, bound: socket.socket) -> None:
        """Answer commands and stay attached until told to stop."""
        server = ApiServer(make_api(self._local))
        try:
            async with asyncio.TaskGroup() as tasks:
                attached = tasks.create_task(self._attach(server), name="control")
                tasks.create_task(server.serve(sockets=[bound]), name="api")
                watching = (
                    tasks.create_task(self._discovery.watch_interfaces(), name="interfaces"),
                    tasks.create_task(self._discovery.watch_servers(), name="stun"),
                    tasks.create_task(self._manager.keep_watch(self._summary), name="watchdog"),
                )
                await self._stop.wait()
                self._manager.stopping()
                log.info("= device %s stops", self._settings.device)
                self._local.stop()
                for task in (attached, *watching):
                    task.cancel()
                server.should_exit = True
        finally:
            bound.close()
            self._settings.control_socket.unlink(missing_ok=True)
            if self._settings.ready_file is not None:
                self._settings.ready_file.unlink(missing_ok=True)

    async def _attach(self, server: ApiServer) -> None:
        """Enrol if need be, say that everything runs, and stay attached."""
        try:
            if self._identity.token is not None:
                await self._control.await_alone()
            for message in self._last.messages():
                self._driver.receive_control(message)
            self._discovery.look()
            self._driver.start(self._endpoint)
            if self._identity.token is None:
                answer = await self._control.enrol(
                    self._settings.join_token or "", keep=self._keep, entropy=secrets.token_bytes, wall=time.time
                )
                for news in (answer.roster, answer.channels):
                    self._attachment.receive_control(news)
            await server.up.wait()
            _spare_collector()
            self._write_ready_file()
            self._manager.ready(self._summary())
            await self._control.run()
        except (RefusedError, WrongServer) as error:
            self._failure = error
            self._stop.set()
        except ConfigError as error:
            # The token could not be kept: it is the disk that failed, and no flag of the user's.
            self._failure = TransportError(str(error))
            self._stop.set()

    def _keep(self, identity: Identity) -> None:
        """Put an identity on the disk."""
        self._folder.save_identity(identity)
        self._kept = identity

    def _remember_server(self) -> None:
        """Keep where this device is attached: it has proved to be the right place."""
        identity = self._control.identity
        if (identity.server, identity.fingerprint) != (self._kept.server, self._kept.fingerprint):
            try:
                self._keep(identity)
            except ConfigError as error:
                log.warning("= the server is not remembered: %s", error)

    async def _close(self) -> None:
        self._driver.stop()
        self._endpoint.close()
        self._attachment.save()
        self._stores.close()
        await self._control.close()
        log.info("= device %s has stopped", self._settings.device)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _write_ready_file(self) -> None:
        address = self._endpoint.address
        log.info(
            "= device %s is ready: UDP %s, commands at %s",
            self._settings.device,
            write_address(address),
            self._settings.control_socket,
        )
        if self._settings.ready_file is None:
            return
        body = {
            "udp_port": address[1],
            "control_socket": str(self._settings.control_socket.absolute()),
            "pid": os.getpid(),
        }
        try:
            write_atomically(self._settings.ready_file, json.dumps(body).encode())
        except OSError as error:
            log.error("= cannot write %s: %s", self._settings.ready_file, error.strerror)

    def _node_config(self) -> NodeConfig:
        settings = self._settings
        return NodeConfig(
            device=settings.device,
            group=settings.group,
            private_key=self._identity.private_key,
            scope=settings.scope,
            declared=settings.declared,
            max_rate_bps=settings.max_rate_bps,
            max_rates=settings.max_rates,
            only_peers=settings.only_peers,
            peers=settings.peers,
            candidates=tuple(dict.fromkeys(write_address(address) for address in settings.advertise)),
            only_advertised=settings.only_advertised,
            denied=settings.denied,
            datagram_bytes=settings.datagram_bytes,
            stream_memory_bytes=settings.stream_memory_bytes,
        )

    def _retention_bytes(self, channel: ChannelId) -> int:
        spec = self._last.channel(channel)
        return spec.retention_bytes if spec else RETENTION_BYTES

    def _on_event(self, event: Event) -> None:
        match event:
            case MessageReceived() | MessageGap():
                self._inbox.add(event)
            case LinkChanged():
                log.info("= link to %s is %s", event.peer, event.state)
                self._local.changes.on_event(event, now=self._driver.now)
            case GraphChanged():
                log.info("= graph of epoch %d", event.epoch)
                self._local.changes.on_event(event, now=self._driver.now)
            case _:
                self._ledger.on_event(event)

    def _summary(self) -> str:
        """Say in a line how this device is doing."""
        links = self._driver.status().links
        count = sum(1 for link in links if link.state == "open")
        attached = "attached" if self._control.attached else "without its server"
        return f"{attached}, {count} of {len(links)} links open"

    def _shell_status(self) -> Mapping[str, object]:
        drops = {f"socket-{reason}": count for reason, count in self._endpoint.drops.items()}
        return {
            "attached": self._control.attached,
            "server": self._settings.server,
            "server_trouble": None if self._control.attached else self._control.trouble,
            "clock_skew_s": self._control.clock.skew_s,
            "clock_wrong": self._control.clock.wrong(),
            "udp_address": write_address(self._endpoint.address),
            "offload": self._endpoint.offload,
            "receive": str(self._settings.receive.absolute()),
            "drops": drops,
        }


async def run_agent(settings: AgentSettings) -> None:
    """Run one agent until SIGTERM or SIGINT.

    Raises:
        ConfigError: something it was started with cannot be used.
        RefusedError: the server refuses this device.
        TransportError: the UDP address cannot be bound, or the device's token cannot be kept.
    """
    folder = StateFolder(settings.state)
    try:
        await Agent(await resolved(settings), folder).run()
    finally:
        folder.close()


def _spare_collector() -> None:
    """Keep what lives long out of the garbage collector: nothing is relayed for the 30 ms of a full collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def resolved(settings: AgentSettings) -> AgentSettings:
    """Return the settings with an address in the place of each host name.

    Raises:
        ConfigError: a name has no address.
    """
    return replace(
        settings,
        listen=None if settings.listen is None else await _resolve(settings.listen),
        advertise=tuple([await _resolve(address) for address in settings.advertise]),
        peers={peer: await _resolve(address) for peer, address in settings.peers.items()},
    )


async def _resolve(address: Address) -> Address:
    host, port = address
    found = []
    with suppress(OSError, UnicodeError, TimeoutError):
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    if not found:
        raise ConfigError(f"host {host!r} has no address")
    return str(found[0][4][0]), port
