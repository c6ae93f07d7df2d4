from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from common.errors import ConfigError
from common.limits import MAX_CONFIG_FILE_BYTES
from host.config_file import Configuration, Value, options_of

STARTED: list[dict[str, Any]] = []


def load(ctx: typer.Context, path: Path | None) -> Path | None:
    return CONFIGURATION.load(ctx, path)


def settle(
    name: Annotated[str, typer.Option()],
    port: Annotated[int, typer.Option(min=0, max=9)] = 5,
    rate: Annotated[list[str] | None, typer.Option()] = None,
    state_folder: Annotated[Path | None, typer.Option()] = None,
    no_dance: Annotated[bool, typer.Option("--no-dance")] = False,
    token: Annotated[str | None, typer.Option()] = None,
    config: Annotated[Path | None, typer.Option(is_eager=True, callback=load)] = None,
) -> dict[str, Any]:
    for each in rate or ():
        if not each.isdigit():
            raise ConfigError(f"rate {each!r} is no number")
    if no_dance and port == 7:
        raise ConfigError("--port 7 and --no-dance contradict each other")
    return {"name": name, "port": port, "rate": rate, "state_folder": state_folder, "no_dance": no_dance}


def stand_ins(values: Mapping[str, Value]) -> Mapping[str, Value]:
    return {"name": "somebody"}


CONFIGURATION = Configuration(settle, secrets=("token",), stand_ins=stand_ins)
app = typer.Typer(pretty_exceptions_enable=False)


@app.command(context_settings={"auto_envvar_prefix": "TRIAL"})
def run(
    name: Annotated[str, typer.Option()],
    port: Annotated[int, typer.Option(min=0, max=9)] = 5,
    rate: Annotated[list[str] | None, typer.Option()] = None,
    state_folder: Annotated[Path | None, typer.Option()] = None,
    no_dance: Annotated[bool, typer.Option("--no-dance")] = False,
    config: Annotated[Path | None, typer.Option(is_eager=True, callback=load)] = None,
) -> None:
    flags: dict[str, Any] = {
        "name": name,
        "port": port,
        "rate": rate,
        "state_folder": state_folder,
        "no_dance": no_dance,
    }
    try:
        STARTED.append(settle(**flags))
    except ConfigError as error:
        raise CONFIGURATION.blame(config, error) from error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it.toml"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def started(*arguments: str, **environment: str) -> dict[str, Any]:
    STARTED.clear()
    result = CliRunner().invoke(app, arguments, env=environment)
    if result.exception is not None:
        raise result.exception
    return STARTED[0]


def test_the_options_are_read_off_the_flags() -> None:
    assert {name: (each.key, each.kind, each.many) for name, each in options_of(settle).items()} == {
        "name": ("name", str, False),
        "port": ("port", int, False),
        "rate": ("rate", str, True),
        "state_folder": ("state-folder", str, False),
        "no_dance": ("no-dance", bool, False),
        "token": ("token", str, False),
    }


def test_a_file_goes_before_defaults_the_environment_before_it_and_flags_before_all(path: Path) -> None:
    write(path, 'name = "file"\nport = 1\nrate = ["1", "2"]\nstate-folder = "S"\nno-dance = true\n')
    of_file = {"name": "file", "port": 1, "rate": ["1", "2"], "state_folder": Path("S"), "no_dance": True}
    assert started("--config", str(path)) == of_file
    assert started(TRIAL_CONFIG=str(path), TRIAL_PORT="2", TRIAL_RATE="3 4") == {
        **of_file,
        "port": 2,
        "rate": ["3", "4"],
    }
    flags = ("--config", str(path), "--port", "3", "--rate", "5")
    assert started(*flags, TRIAL_PORT="2") == {**of_file, "port": 3, "rate": ["5"]}


def test_one_text_may_stand_for_a_list_of_one(path: Path) -> None:
    assert started("--config", str(write(path, 'name = "x"\nrate = "7"\n')))["rate"] == ["7"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('name = "x"\nprot = 1\n', 2, "no setting is called 'prot'; did you mean 'port'?"),
        ('name = "x"\n\nxylophone = 1\n', 3, "no setting is called 'xylophone'"),
        ("no_dance = true\n", 1, "no setting is called 'no_dance'; did you mean 'no-dance'?"),
        ('config = "x"\n', 1, "no setting is called 'config'"),
        ("[port]\nport = 1\n", 1, "port has to be a whole number, not a table"),
        ('port = "1"\n', 1, "port has to be a whole number, not '1'"),
        ("port = true\n", 1, "port has to be a whole number, not true"),
        ("no-dance = 1\n", 1, "no-dance has to be true or false, not 1"),
        ("name = 7\n", 1, "name has to be a text in quotes, not 7"),
        ("rate = [\n 1,\n]\n", 1, 'rate has to be a text or a list of texts, such as ["one", "two"], not [1]'),
        (f"name = {list(range(99))}\n", 1, f"name has to be a text in quotes, not {str(list(range(99)))[:80]}…"),
        ('name = "x"\nport = 70\n', 2, "port: Input should be less than or equal to 9"),
        ('name = "x"\nrate = ["1", "fast"]\n', 2, "rate 'fast' is no number"),
        ('name = "x"\nport = 7\n#\nno-dance = true\n', 4, "--port 7 and --no-dance contradict each other"),
        ('name = "x"\nname = "y"\n', 2, "not valid TOML: Cannot overwrite a value"),
        ('name = "x"\nport = ', 2, "not valid TOML: Invalid value"),
    ],
)
def test_a_mistake_is_named_with_its_line_by_the_check_and_by_the_command(
    path: Path, text: str, line: int, words: str
) -> None:
    write(path, text)
    with pytest.raises(ConfigError) as checked:
        CONFIGURATION.check(path)
    assert str(checked.value) == f"{path}:{line}: {words}"
    with pytest.raises(ConfigError) as ran:
        started("--config", str(path), "--name", "x")
    assert str(ran.value) == str(checked.value)


def test_a_file_that_is_good_is_told_with_what_it_says(path: Path) -> None:
    write(path, "port = 2\nrate = []\n")
    assert CONFIGURATION.check(path).values == {"port": 2, "rate": []}


def test_flags_may_mend_what_a_file_says(path: Path) -> None:
    write(path, 'name = "x"\nport = 7\nno-dance = true\n')
    assert started("--config", str(path), "--port", "6")["port"] == 6


def test_what_the_flags_are_to_blame_for_is_not_put_on_the_file(path: Path) -> None:
    write(path, 'name = "x"\nport = 7\n')
    with pytest.raises(ConfigError) as caught:
        started("--config", str(path), "--no-dance")
    assert str(caught.value) == "--port 7 and --no-dance contradict each other"
    with pytest.raises(ConfigError) as caught:
        started("--name", "x", "--rate", "y")
    assert str(caught.value) == "rate 'y' is no number"


def test_a_file_that_changed_meanwhile_is_not_blamed(path: Path) -> None:
    error = ConfigError("something")
    assert CONFIGURATION.blame(path, error) is error


def test_what_is_wrong_with_no_single_line_is_told_of_the_file(path: Path) -> None:
    def picky(name: str = "a", port: int = 1) -> None:
        raise ConfigError(f"{name} {port}")

    picky_ones = Configuration(picky, stand_ins=lambda values: {})
    write(path, "")
    with pytest.raises(ConfigError) as caught:
        picky_ones.check(path)
    assert str(caught.value) == f"{path}: a 1"


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_secret_that_others_may_read_is_refused(path: Path, mode: int, refused: bool) -> None:
    write(path, 'name = "x"\ntoken = "t-secret"\n').chmod(mode)
    if refused:
        with pytest.raises(ConfigError) as caught:
            CONFIGURATION.check(path)
        assert str(caught.value) == (
            f"{path}:2: everybody on this host may read this file, and token is a secret: chmod o-rwx {path}"
        )
    else:
        CONFIGURATION.check(path)
    write(path, 'name = "x"\ntoken = "@/a/file"\n').chmod(mode)
    CONFIGURATION.check(path)


def test_a_file_that_cannot_be_read_is_one_sentence(path: Path) -> None:
    for bad, words in ((path, "No such file or directory"), (path.parent, "Is a directory")):
        with pytest.raises(ConfigError, match=f"^cannot read {bad}: {words}$"):
            CONFIGURATION.check(bad)
    path.write_bytes(b'name = "x"\n# \xff\n')
    with pytest.raises(ConfigError, match=f"^{path}:2: this is not UTF-8$"):
        CONFIGURATION.check(path)
    path.write_text("#" * MAX_CONFIG_FILE_BYTES)
    CONFIGURATION.check(path)
    path.write_text("#" * (MAX_CONFIG_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match=f"^{path} is larger than {MAX_CONFIG_FILE_BYTES} bytes"):
        CONFIGURATION.check(path)
