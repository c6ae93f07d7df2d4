"""The commands about a daemon's configuration file: check one, print one to begin with."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from host.config_file import Configuration


def _untold(command: Callable[..., None]) -> Callable[..., None]:
    return command


def config_commands(
    configuration: Configuration,
    package: str,
    example: str,
    *,
    telling: Callable[[Callable[..., Any]], Callable[..., Any]] = _untold,
) -> typer.Typer:
    """Return a daemon's ``config`` commands.

    Args:
        configuration: its settings.
        package: the room in which its example lies.
        example: the example's file name.
        telling: has a command tell its errors, where the command line does not do so by itself.
    """
    found = typer.Typer(help="The configuration file.", no_args_is_help=True)

    @found.command()
    @telling
    def check(file: Annotated[Path, typer.Argument(help="The TOML file.")]) -> None:
        """Try a configuration file; exit 0 if it can be used, else name the line."""
        count = len(configuration.check(file).values)
        typer.echo(f"{file}: {count} setting{'' if count == 1 else 's'}, all usable")

    @found.command(name="example")
    def print_example() -> None:
        """Print a file that names every setting, each with its default and what it is."""
        typer.echo(files(package).joinpath(example).read_text(encoding="utf-8"), nl=False)

    return found
