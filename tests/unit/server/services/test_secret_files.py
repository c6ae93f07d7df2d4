import stat
from pathlib import Path

import pytest

from common.errors import ConfigError
from server.services.secret_files import read_token, write_secret, write_token

TOKEN = "admin~0123456789abcdef"


def test_a_token_is_read_back_and_only_its_owner_can(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_token(path, TOKEN)
    assert read_token(path) == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_token_that_exists_is_replaced_with_the_right_mode(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    write_token(path, TOKEN)
    assert read_token(path) == TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 200, b"two words and more", b"\xff" * 20, "ä".encode() * 20, b"a\x07" * 10]
)
def test_what_is_not_one_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_token(path)


def test_a_file_that_cannot_be_read_or_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read a token from"):
        read_token(tmp_path / "missing")
    with pytest.raises(ConfigError, match="cannot write a token to"):
        write_token(tmp_path / "missing" / "token", TOKEN)
    with pytest.raises(ConfigError, match="cannot write a key to"):
        write_secret(tmp_path / "missing" / "key", "k", "a key")
