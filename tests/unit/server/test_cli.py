import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import ConfigError, ConnectError, RefusedError
from server import cli
from server.services.join_strings import Order
from server.settings import Settings


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.output


def test_run_settles_the_flags_and_prints_one_line_when_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
        seen.append(settings)
        announce("http://127.0.0.1:8640")

    monkeypatch.setattr(cli, "serve", serve)
    state, ready = tmp_path / "state", tmp_path / "ready"
    arguments = [
        "--state",
        str(state),
        "--group",
        "lab",
        "--group",
        "b",
        "--port",
        "0",
        "--ready-file",
        str(ready),
        "-v",
    ]
    assert run("run", *arguments) == (0, "listening on http://127.0.0.1:8640\n")
    assert seen == [Settings(state, port=0, groups=("lab", "b"), ready_file=ready)]
    run("run", "--state", str(state), "--stun-port", "3478")
    run("run", "--state", str(state), "--no-stun")
    assert seen[1:] == [Settings(state, stun_port=3_478), Settings(state, stun=False)]


def test_what_cannot_be_is_said_in_one_line_with_exit_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
        raise ConfigError("port taken")

    monkeypatch.setattr(cli, "serve", serve)
    assert run("run", "--state", str(tmp_path)) == (2, "arborcast-server: port taken\n")


def test_the_flags_of_the_certificate_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
        seen.append(settings)

    monkeypatch.setattr(cli, "serve", serve)
    run("run", "--state", str(tmp_path), "--self-signed", "--tls-name", "a.example", "--tls-name", "::1")
    assert seen == [Settings(tmp_path, self_signed=True, tls_names=("a.example", "::1"))]


@pytest.mark.parametrize("arguments", [["run"], ["run", "--state", "x", "--port", "70000"], ["unknown"]])
def test_a_mistake_in_the_flags_is_told(arguments: list[str]) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert "Usage" in output


def test_the_contract_can_be_printed() -> None:
    code, output = run("openapi")
    assert code == 0
    assert json.loads(output)["info"]["title"] == "arborcast server"


def test_main_runs_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["arborcast-server", "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0


def test_a_certificate_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    state, cert, key = (str(tmp_path / name) for name in ("state", "cert.pem", "key.pem"))
    code, output = run("run", "--state", state, "--port", "0", "--tls-cert", cert, "--tls-key", key)
    assert code == 2
    assert output.startswith(f"arborcast-server: cannot use the certificate {cert} with the key {key}: ")
    assert output.count("\n") == 1
    assert not (tmp_path / "state").exists()


def test_a_certificate_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("none")
    code, output = run("run", "--state", str(tmp_path / "s"), "--tls-cert", str(path), "--tls-key", str(path))
    assert (code, output.count("\n")) == (2, 1)


def test_a_join_string_is_one_word_on_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, Order, Path | None]] = []

    def make(state: Path, order: Order, admin_token_file: Path | None) -> tuple[str, str]:
        seen.append((state, order, admin_token_file))
        return "arborcast1.x", "https://h:1"

    monkeypatch.setattr(cli, "make_join_string", make)
    arguments = ["join-string", "--state", str(tmp_path), "--group", "lab"]
    result = CliRunner().invoke(cli.app, arguments)
    assert (result.exit_code, result.stdout) == (0, "arborcast1.x\n")
    assert result.stderr == (
        "for any number of devices, good for 24h, server https://h:1;"
        " where agents reach it under another address, give that with --url\n"
    )
    more = ["--url", "https://g:2/", "--expires", "never", "--uses", "2", "--note", "n", "--admin-token-file", "t"]
    result = CliRunner().invoke(cli.app, [*arguments, *more])
    assert result.stderr == "for 2 devices, good for ever, server https://h:1\n"
    assert seen == [
        (tmp_path, Order("lab", None, 86_400.0), None),
        (tmp_path, Order("lab", "https://g:2", None, 2, "n"), Path("t")),
    ]


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (ConfigError("no state"), 2, "no state"),
        (ConnectError("nobody answers"), 1, "nobody answers"),
        (RefusedError("unknown-group", "there is no group 'lab'"), 1, "there is no group 'lab'"),
    ],
)
def test_a_join_string_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: int, sentence: str
) -> None:
    def make(state: Path, order: Order, admin_token_file: Path | None) -> tuple[str, str]:
        raise failure

    monkeypatch.setattr(cli, "make_join_string", make)
    assert run("join-string", "--state", str(tmp_path), "--group", "lab") == (code, f"arborcast-server: {sentence}\n")


@pytest.mark.parametrize("flags", ["--group no/name", "--group lab --url nowhere", "--group lab --expires soon"])
def test_a_wrong_order_of_a_join_string_is_one_sentence(tmp_path: Path, flags: str) -> None:
    code, output = run("join-string", "--state", str(tmp_path), *flags.split())
    assert (code, output.count("\n")) == (2, 1)
