import asyncio
import time
from pathlib import Path

from typer.testing import CliRunner

from server import cli
from server.services.store.sqlite import SqliteStore


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.output


def test_a_state_is_backed_up_and_restored(tmp_path: Path) -> None:
    state, file, new = tmp_path / "state", tmp_path / "it.tar", tmp_path / "new"
    state.mkdir()
    (state / "admin-token").write_text("x")

    async def make() -> None:
        await SqliteStore.open(state / "state.sqlite3", wall=time.time).close()

    asyncio.run(make())
    assert run("backup", "--state", str(state), str(file)) == (0, f"{file}: admin-token, state.sqlite3\n")
    assert run("restore", "--state", str(new), str(file)) == (0, f"{new}: admin-token, state.sqlite3\n")
    assert (new / "admin-token").read_text() == "x"


def test_what_cannot_be_is_said_in_one_line_with_exit_2(tmp_path: Path) -> None:
    sentence = f"{tmp_path} holds no server's state: there is no state.sqlite3"
    assert run("backup", "--state", str(tmp_path), str(tmp_path / "x.tar")) == (2, f"arborcast-server: {sentence}\n")
    code, output = run("restore", "--state", str(tmp_path / "new"), str(tmp_path / "x.tar"))
    assert (code, output.count("\n")) == (2, 1)
