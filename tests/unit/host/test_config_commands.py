"""The `config` commands of both daemons, and the examples that they print."""

import re
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import agent.cli
import server.cli
from common.errors import ConfigError
from host.config_file import Configuration

DAEMONS = pytest.mark.parametrize(
    ("app", "command", "configuration"),
    [
        (agent.cli.app, "agent", agent.cli.CONFIGURATION),
        (server.cli.app, "run", server.cli.CONFIGURATION),
    ],
)
NOT_ALONE = ("join", "tls-cert", "tls-key", "join-token-file", "stun-port", "tls-name")


def run(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def uncommented(example: str) -> str:
    return re.sub(r"^#(?=[a-z-]+ = )", "", example, flags=re.MULTILINE)


@DAEMONS
def test_the_example_names_every_setting_and_can_be_used(
    app: typer.Typer, command: str, configuration: Configuration, tmp_path: Path
) -> None:
    example = run(app, "config", "example")
    path = tmp_path / "example.toml"
    path.write_text(example)
    assert run(app, "config", "check", str(path)) == f"{path}: 0 settings, all usable\n"
    said = tomllib.loads(uncommented(example))
    assert set(said) == {option.key for option in configuration.options.values()}
    for option in configuration.options.values():
        assert option.check(said[option.key]) is None, option.key
        # By itself each example passes the parser of its flag.
        path.write_text(next(line[1:] for line in example.splitlines() if line.startswith(f"#{option.key} = ")) + "\n")
        path.chmod(0o600)
        if option.key not in (
            "join",
            "tls-cert",
            "tls-key",
            "join-token-file",
            "only-advertised",
            "stun-port",
            "tls-name",
        ):
            assert run(app, "config", "check", str(path)) == f"{path}: 1 setting, all usable\n"


@DAEMONS
def test_the_example_states_the_defaults(app: typer.Typer, command: str, configuration: Configuration) -> None:
    said = tomllib.loads(uncommented(run(app, "config", "example")))
    found = typer.main.get_command(app)
    for parameter in found.commands[command].params:  # type: ignore[attr-defined]
        default = parameter.default
        if default is not None and parameter.name in configuration.options:
            assert said[parameter.name.replace("_", "-")] == default, parameter.name


def test_a_mistake_ends_with_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('state = "s"\nprot = 1\n')
    result = CliRunner().invoke(server.cli.app, ["config", "check", str(path)])
    sentence = f"{path}:2: no setting is called 'prot'; did you mean 'port'?"
    assert (result.exit_code, result.output) == (2, f"arborcast-server: {sentence}\n")
    result = CliRunner().invoke(server.cli.app, ["run", "--config", str(path)])
    assert (result.exit_code, result.output) == (2, f"arborcast-server: {sentence}\n")
    result = CliRunner().invoke(agent.cli.app, ["config", "check", str(path)])
    assert isinstance(result.exception, ConfigError)
