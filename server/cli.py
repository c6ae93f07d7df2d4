"""The command line: `arborcast-server`."""

import asyncio
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TypeVar

import typer

from common.errors import ArborcastError, ConfigError, RefusedError
from common.ids import check_id
from host.config_commands import config_commands
from host.config_file import Configuration
from host.logs import check_log, set_up_log
from server import state_commands
from server.api.application import create_application
from server.app import serve
from server.services.coordinator import Coordinator
from server.services.join_strings import Order, make_join_string
from server.services.store.memory import MemoryStore
from server.settings import Settings, check_url, parse_span

app = typer.Typer(
    help="The coordination server of arborcast: it knows the links, computes the graph, and never carries payload.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _commands() -> None:
    """Have typer ask for a command even while there is little to choose from."""


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _telling(work: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a command say in one line what is wrong, and end: with 2 where flags or files are, with 1 elsewhere."""

    @functools.wraps(work)
    def told(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return work(*arguments, **options)
        except ArborcastError as error:
            typer.echo(f"arborcast-server: {error.detail if isinstance(error, RefusedError) else error}", err=True)
            raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error

    return told


@_telling
def _load(ctx: typer.Context, path: Path | None) -> Path | None:
    return CONFIGURATION.load(ctx, path)


def settle(
    state: Annotated[Path, typer.Option(help="Directory of the database and the tokens; made if missing.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port to listen on; 0 for any free one.", min=0, max=65_535)] = 8640,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="Make this group if it is missing; its join token goes to STATE/join-token-GROUP. Repeatable."
        ),
    ] = None,
    admin_token_file: Annotated[
        Path | None, typer.Option(help="The administrator's token; STATE/admin-token, made if missing, by default.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help='Write {"url": …, "stun_port": …} to this file once listening.')
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate chain (PEM); with --tls-key. Without them a server that others can reach makes one."
        ),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Key of the certificate (PEM).")] = None,
    self_signed: Annotated[
        bool, typer.Option("--self-signed", help="Use TLS with a certificate of its own on loopback, too.")
    ] = False,
    tls_name: Annotated[
        list[str] | None, typer.Option(help="A further host name or address for that certificate. Repeatable.")
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Allow plain HTTP on an address that others can reach.")
    ] = False,
    stun_port: Annotated[
        int | None,
        typer.Option(
            help="First of two UDP ports that answer STUN; the number of --port by default.", min=1, max=65_535
        ),
    ] = None,
    no_stun: Annotated[bool, typer.Option("--no-stun", help="Answer no STUN.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    log_format: Annotated[str, typer.Option(help="text, or json: one object a line.")] = "text",
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings; flags and environment go before it.", is_eager=True, callback=_load),
    ] = None,
) -> Settings:
    """Make the server's settings of its flags.

    Raises:
        ConfigError: a flag, or two together, cannot be used.
    """
    check_log(_level(verbose=verbose), log_format)
    settings = Settings(
        state=state,
        host=host,
        port=port,
        admin_token_file=admin_token_file,
        groups=tuple(group or ()),
        ready_file=ready_file,
        insecure_http=insecure_http,
        tls_cert=tls_cert,
        tls_key=tls_key,
        self_signed=self_signed,
        tls_names=tuple(tls_name or ()),
        stun=not no_stun,
        stun_port=stun_port,
    )
    settings.check()
    return settings


def _level(*, verbose: bool) -> str:
    return "info" if verbose else "warning"


CONFIGURATION: Final = Configuration(settle, stand_ins=lambda values: {"state": "state"})
app.command()(_telling(state_commands.backup))
app.command("restore")(_telling(state_commands.restore_state))
app.add_typer(config_commands(CONFIGURATION, "server", "server.toml", telling=_telling), name="config")


@app.command(context_settings={"auto_envvar_prefix": "ARBORCAST_SERVER"})
@_telling
@functools.wraps(settle, assigned=("__module__", "__annotations__"))
def run(**flags: Any) -> None:
    """Run the server until SIGTERM or SIGINT."""
    try:
        settings = settle(**flags)
    except ConfigError as error:
        raise CONFIGURATION.blame(flags["config"], error) from error
    set_up_log(_level(verbose=flags["verbose"]), flags["log_format"])
    asyncio.run(serve(settings, lambda url: typer.echo(f"listening on {url}")))


@app.command()
@_telling
def join_string(
    state: Annotated[Path, typer.Option(help="The state directory of the server that runs.")],
    group: Annotated[str, typer.Option(help="The group that it lets devices into.")],
    url: Annotated[
        str | None, typer.Option(help="The server as agents reach it, such as https://tree.example.org:8640.")
    ] = None,
    expires: Annotated[str, typer.Option(help="How long it lets devices in: 30m, 24h, 7d, or never.")] = "24h",
    uses: Annotated[int | None, typer.Option(help="How many devices it lets in; any number by default.", min=1)] = None,
    note: Annotated[str, typer.Option(help="What it is for; the server lists it.")] = "",
    admin_token_file: Annotated[
        Path | None, typer.Option(help="The administrator's token; STATE/admin-token by default.")
    ] = None,
) -> None:
    """Print one word with which `arborcast agent --join` joins a group."""
    order = Order(check_id(group, "group"), None if url is None else check_url(url), parse_span(expires), uses, note)
    word, reached = make_join_string(state, order, admin_token_file)
    typer.echo(word)
    many = "any number of devices" if uses is None else f"{uses} device{'s' if uses > 1 else ''}"
    hint = "" if url else "; where agents reach it under another address, give that with --url"
    typer.echo(f"for {many}, good for {'ever' if expires == 'never' else expires}, server {reached}{hint}", err=True)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document: the contract."""
    application = create_application(Coordinator(MemoryStore(monotonic=lambda: 0.0)), admin_token="")
    typer.echo(json.dumps(application.openapi(), indent=2))


def main() -> None:
    """Run the command line."""
    app()
