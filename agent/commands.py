"""The commands that speak to the running agent."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from agent.client import AgentClient, Line
from agent.progress import DeviceBars, NoProgress, Shown
from agent.publisher import Publisher
from agent.settings import SOCKET_VARIABLE, default_control_socket
from agent.tables import graph_lines, receipts_table, status_tables
from common.errors import ConfigError, ConnectError
from common.limits import MAX_MESSAGE_BYTES

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
PIPE_WIDTH: Final = 200
"""Columns of a table that is read by no terminal."""
_LINE_END_BYTES: Final = 2

ControlSocket = Annotated[
    Path | None,
    typer.Option(help=f"The agent's unix socket; ${SOCKET_VARIABLE} by default."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def send(
    file: Annotated[Path, typer.Argument(help="The file to send.")],
    channel: Annotated[str, typer.Option(help="The channel to send on.")] = "files",
    wait: Annotated[str, typer.Option(help="all: until every member has it; none: leave it to the agent.")] = "all",
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds to wait; the sending goes on after.")
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    control_socket: ControlSocket = None,
) -> None:
    """Send a file to every member of the group; exit 0 only if each has it, its hash verified.

    Interrupted by Ctrl-C, it takes the file back everywhere.
    """
    if wait not in ("all", "none"):
        raise ConfigError(f"--wait {wait!r} is neither all nor none")
    body: dict[str, object] = {"path": str(_readable(file)), "channel": channel, "wait": wait}
    if timeout is not None:
        body["timeout"] = timeout
    with AgentClient(control_socket or default_control_socket()) as client:
        opened, finished = _send(client, body, bars=not (as_json or quiet))
    if as_json:
        result = {**opened, **finished}
        del result["event"]
        typer.echo(json.dumps(result))
    elif not quiet or not finished["ok"]:
        _tell_end(opened, finished)
    if not finished["ok"]:
        raise typer.Exit(EXIT_FAILED)


def publish(
    message: Annotated[str | None, typer.Argument(help="The message; without it standard input is one.")] = None,
    channel: Annotated[str, typer.Option(help="The channel to publish on.")] = "messages",
    lines: Annotated[bool, typer.Option("--lines", help="Each line of standard input is a message.")] = False,
    as_json: AsJson = False,
    control_socket: ControlSocket = None,
) -> None:
    """Publish a message to every member that follows the channel."""
    if message is not None and lines:
        raise ConfigError("--lines reads standard input; leave the message out")
    with Publisher(control_socket or default_control_socket(), channel) as publisher:
        for payload in _payloads(message, lines=lines):
            answer = publisher.publish(payload)
            if as_json:
                typer.echo(json.dumps(answer))
                sys.stdout.flush()


def tail(
    channel: Annotated[str, typer.Option(help="The channel to follow.")] = "messages",
    consumer: Annotated[
        str | None,
        typer.Option(help="Name under which the agent keeps how far this reader is."),
    ] = None,
    retained: Annotated[bool, typer.Option("--retained", help="Begin with what the agent has kept.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print the payloads alone.")] = False,
    as_json: AsJson = False,
    control_socket: ControlSocket = None,
) -> None:
    """Print the messages of a channel as they come, each source's in order and once."""
    params = {"channel": channel, "from": "retained" if retained else "new"}
    if consumer is not None:
        params["consumer"] = consumer
    left = count
    with AgentClient(control_socket or default_control_socket()) as client:
        try:
            for batch in client.follow(params):
                given = _first_messages(batch, left)
                numbers = _print_messages(given, raw=raw, as_json=as_json)
                if consumer is not None and numbers:
                    client.acknowledge(consumer, channel, numbers)
                if left is not None:
                    left -= sum(1 for line in given if line["event"] == "message")
                    if left == 0:
                        return
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
    raise ConnectError("the agent stopped")


def status(as_json: AsJson = False, control_socket: ControlSocket = None) -> None:
    """Show the agent's links, streams and what it dropped."""
    with AgentClient(control_socket or default_control_socket()) as client:
        report = client.get("/status")
    if as_json:
        typer.echo(json.dumps(report))
        return
    # No markup: an IPv6 address in brackets is none.
    console = Console(markup=False)
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH, markup=False)
    for part in status_tables(report):
        console.print(part)


def graph(as_json: AsJson = False, control_socket: ControlSocket = None) -> None:
    """Show the distribution graph as this device knows it: each device and its neighbours."""
    with AgentClient(control_socket or default_control_socket()) as client:
        report = client.get("/graph")
    typer.echo(json.dumps(report) if as_json else "\n".join(graph_lines(report)))


def _readable(file: Path) -> Path:
    """Return the absolute path of a file that can be read.

    Raises:
        ConfigError: it cannot.
    """
    try:
        if file.exists() and not file.is_file():
            raise ConfigError(f"cannot send {file}: it is not a regular file")
        with file.open("rb"):
            path = file.absolute()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"cannot send {str(path)!r}: the file's name and folder must be UTF-8") from error
    return path


def _send(client: AgentClient, body: Mapping[str, object], *, bars: bool) -> tuple[Line, Line]:
    """Send a file and follow it to its end; return what was said first and last."""
    batches = client.send_file(body)
    lines = (line for batch in batches for line in batch)
    opened = next(lines, None)
    if opened is None:
        raise ConnectError("the agent stopped")
    try:
        with _shown(opened, bars=bars) as shown:
            for line in lines:
                if "receipts" in line:
                    shown.update(line["receipts"])
                if line["event"] == "finished":
                    return opened, line
    except KeyboardInterrupt:
        client.cancel(opened["stream"])
        typer.echo(f"arborcast: {opened['name']} is taken back", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise ConnectError("the agent stopped; it goes on with the file when it is started again")


def _shown(opened: Line, *, bars: bool) -> Shown:
    console = Console(stderr=True)
    if bars and console.is_terminal:
        return DeviceBars(console, opened["size_bytes"])
    return NoProgress()


def _tell_end(opened: Line, finished: Line) -> None:
    """Say who has the file, and of those who have not, why."""
    name, receipts = opened["name"], finished["receipts"]
    has = sum(1 for receipt in receipts.values() if receipt["state"] == "verified")
    if finished["reason"] == "not-waited":
        typer.echo(f"{name}: left to the agent as stream {opened['stream']}")
        return
    text = f"{name}: {has} of {len(receipts)} devices verified it in {finished['seconds']:.1f} s"
    typer.echo(text, err=not finished["ok"])
    if not finished["ok"]:
        console = Console(stderr=True, markup=False)
        console.print(receipts_table(receipts, opened["size_bytes"]))
        if finished["reason"] == "timeout":
            typer.echo(f"the agent goes on with it, as stream {opened['stream']}", err=True)
        elif finished["reason"] != "refused":
            typer.echo(f"arborcast: {finished['reason']}", err=True)


def _payloads(message: str | None, *, lines: bool) -> Iterator[bytes]:
    """Yield what is to be published; of what is too long, no more than it takes for the agent to refuse it."""
    if message is not None:
        yield message.encode(errors="surrogateescape")
    elif lines:
        while line := sys.stdin.buffer.readline(MAX_MESSAGE_BYTES + _LINE_END_BYTES + 1):
            yield line.rstrip(b"\r\n")
    else:
        yield sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 1)


def _first_messages(batch: list[Line], most: int | None) -> list[Line]:
    """Return the lines up to the ``most``-th message."""
    if most is None:
        return batch
    found = []
    for line in batch:
        found.append(line)
        most -= line["event"] == "message"
        if most == 0:
            break
    return found


def _print_messages(batch: list[Line], *, raw: bool, as_json: bool) -> dict[str, int]:
    """Print messages and gaps; return the last number of each stream."""
    numbers: dict[str, int] = {}
    for line in batch:
        if line["event"] == "message":
            numbers[line["stream"]] = line["number"]
        elif line["event"] == "gap":
            numbers[line["stream"]] = line["last"]
        else:
            continue
        _print_message(line, raw=raw, as_json=as_json)
    sys.stdout.flush()
    return numbers


def _print_message(line: dict[str, Any], *, raw: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(line))
    elif line["event"] == "gap":
        typer.echo(
            f"arborcast: numbers {line['first']} to {line['last']} of {line['source']} are lost,"
            " they left the channel's retention",
            err=True,
        )
    else:
        payload = base64.b64decode(line["payload"])
        if raw:
            sys.stdout.buffer.write(payload + b"\n")
        else:
            typer.echo(f"{line['source']}: {payload.decode(errors='replace')}")
