"""The commands about the server's state as a whole: back it up, restore it."""

from pathlib import Path
from typing import Annotated

import typer

from server.services.backup import back_up, restore

State = Annotated[Path, typer.Option(help="The server's state directory.", envvar="ARBORCAST_SERVER_STATE")]


def backup(state: State, file: Annotated[Path, typer.Argument(help="The tar file to write.")]) -> None:
    """Write the server's state (database, tokens, certificate) into one file, mode 0600; the server may run."""
    names = back_up(state, file)
    typer.echo(f"{file}: {', '.join(names)}")


def restore_state(state: State, file: Annotated[Path, typer.Argument(help="What `backup` wrote.")]) -> None:
    """Put a backup into an empty state directory."""
    names = restore(state, file)
    typer.echo(f"{state}: {', '.join(names)}")
