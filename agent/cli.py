"""The command line of a device: run its agent, or speak to the one that runs."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from agent import commands, joining, settings
from common.errors import ArborcastError, ConfigError, RefusedError
from common.limits import DEFAULT_DATAGRAM_BYTES
from host.config_commands import config_commands
from host.config_file import Configuration, Value
from host.logs import check_log, set_up_log

app = typer.Typer(
    name="arborcast",
    help="Bring files and messages to every device of a group, over the links that they have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (
    commands.send,
    commands.publish,
    commands.tail,
    commands.status,
    commands.graph,
):
    app.command()(_command)


def _load(ctx: typer.Context, path: Path | None) -> Path | None:
    return CONFIGURATION.load(ctx, path)


def settle(
    join: Annotated[
        str | None,
        typer.Option(
            help="Join string of `arborcast-server join-string`, or @FILE with one, as others see command lines;"
            " it says all that has to be said.",
        ),
    ] = None,
    server: Annotated[str | None, typer.Option(help="The server's URL, such as https://host:8640.")] = None,
    group: Annotated[str | None, typer.Option(help="The group to join.")] = None,
    device: Annotated[
        str | None, typer.Option(help="This device's name in the group; the host's name by default.")
    ] = None,
    join_token_file: Annotated[Path | None, typer.Option(help="File with the token that lets a new device in.")] = None,
    join_token: Annotated[
        str | None,
        typer.Option(
            help="The same token; better by the environment, as others see command lines.",
        ),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="UDP HOST:PORT; by default a free port, on all interfaces and of both families.")
    ] = None,
    advertise: Annotated[
        list[str] | None, typer.Option(help="A further HOST:PORT at which peers reach this device.")
    ] = None,
    only_advertised: Annotated[
        bool, typer.Option("--only-advertised", help="Tell the group no address but those of --advertise.")
    ] = False,
    peer: Annotated[list[str] | None, typer.Option(help="A peer's fixed address: PEER=HOST:PORT.")] = None,
    only_peer: Annotated[list[str] | None, typer.Option(help="Link with these peers and no others.")] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(help="Keep out of this network: tell, try and take no address of it, such as 10.8.0.0/16."),
    ] = None,
    stun: Annotated[
        list[str] | None,
        typer.Option(help="STUN server HOST:PORT that tells this device's address as others see it, or off."),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(help="What a link is known to give: PEER=RATE[,DELAY], such as B=100M,5ms."),
    ] = None,
    max_rate: Annotated[
        list[str] | None,
        typer.Option(help="Send no faster: RATE to all peers together, or PEER=RATE to one, such as 50M or B=20M."),
    ] = None,
    scope: Annotated[str, typer.Option(help="What to subscribe to: graph, or neighbours alone.")] = "graph",
    state: Annotated[Path | None, typer.Option(help="Folder of the agent's own records.")] = None,
    receive: Annotated[Path | None, typer.Option(help="Folder for received files; STATE/received by default.")] = None,
    control_socket: Annotated[
        Path | None,
        typer.Option(help=f"Unix socket for commands; ${settings.SOCKET_VARIABLE} by default."),
    ] = None,
    datagram_bytes: Annotated[
        int, typer.Option(help="The largest UDP payload to try; what each path takes is found by probes.")
    ] = DEFAULT_DATAGRAM_BYTES,
    stream_memory: Annotated[str, typer.Option(help="What one stream may take of memory.")] = "64M",
    quota: Annotated[str | None, typer.Option(help="What the receive folder may hold, such as 10G.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="File to write once everything runs.")] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file of the authorities for the server's certificate.")
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Allow a server without TLS on another host.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option(help="text, or json: one object a line.")] = "text",
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings; flags and environment go before it.", is_eager=True, callback=_load),
    ] = None,
) -> settings.AgentSettings:
    """Make an agent's settings of its flags.

    Raises:
        ConfigError: a flag, or two together, cannot be used.
    """
    check_log(log_level, log_format)
    if scope not in ("graph", "neighbours"):
        raise ConfigError(f"scope {scope!r} is neither graph nor neighbours")
    folder = state or settings.default_state()
    max_rate_bps, max_rates = settings.parse_max_rates(max_rate or ())
    home = joining.settle(joining.Said(server, group, device, join, join_token, join_token_file, ca_file), folder)
    return settings.AgentSettings(
        server=home.server,
        group=home.group,
        device=home.device,
        state=folder,
        receive=receive or folder / "received",
        control_socket=control_socket or (folder / "agent.sock" if state else settings.default_control_socket()),
        listen=settings.parse_address(listen, any_port=True) if listen else None,
        join_token=home.join_token,
        advertise=tuple(settings.parse_address(each) for each in advertise or ()),
        only_advertised=only_advertised,
        peers=settings.gather(map(settings.parse_peer, peer or ()), "an address"),
        only_peers=settings.parse_only_peers(only_peer) if only_peer else None,
        denied=tuple(settings.parse_network(each) for each in deny or ()),
        stun=settings.parse_stun(stun or ()),
        declared=settings.gather(map(settings.parse_link, link or ()), "a link"),
        max_rate_bps=max_rate_bps,
        max_rates=max_rates,
        scope="graph" if scope == "graph" else "neighbours",
        datagram_bytes=datagram_bytes,
        quota_bytes=settings.parse_size(quota) if quota else None,
        stream_memory_bytes=settings.parse_size(stream_memory),
        ready_file=ready_file,
        ca_file=ca_file,
        fingerprint=home.fingerprint,
        insecure_http=insecure_http,
    )


def _stand_ins(values: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return what has to be said somewhere; the state of whoever checks is no part of the file."""
    where = {} if "join" in values else {"server": "http://127.0.0.1:8640", "group": "group"}
    return {"device": "device", "state": "/nonexistent", **where}


CONFIGURATION: Final = Configuration(settle, secrets=("join", "join_token"), stand_ins=_stand_ins)
app.add_typer(config_commands(CONFIGURATION, "agent", "agent.toml"), name="config")


@app.command(context_settings={"auto_envvar_prefix": "ARBORCAST"})
@functools.wraps(settle, assigned=("__module__", "__annotations__"))
def agent(**flags: Any) -> None:
    """Run this device's agent until SIGTERM or SIGINT."""
    try:
        chosen = settle(**flags)
    except ConfigError as error:
        raise CONFIGURATION.blame(flags["config"], error) from error
    set_up_log(flags["log_level"], flags["log_format"], quiet=("httpx", "httpcore", "websockets"))
    # Here and not above: the other commands start faster without the agent's parts.
    from agent.app import run_agent

    asyncio.run(run_agent(chosen))


def main() -> None:
    """Run one command; errors are one sentence, with exit code 1, or 2 where the command line is wrong."""
    try:
        app()
    except RefusedError as error:
        _fail(error.detail, 1)
    except ConfigError as error:
        _fail(str(error), 2)
    except ArborcastError as error:
        _fail(str(error), 1)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"arborcast: {sentence}", err=True)
    sys.exit(code)
