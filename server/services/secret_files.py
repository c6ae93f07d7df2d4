"""Files that hold a secret: mode 0600, written in one step; a token is read without its newline."""

import os
from pathlib import Path

from common.errors import ConfigError
from common.limits import MAX_TOKEN_CHARS

MIN_TOKEN_CHARS = 16


def read_token(path: Path) -> str:
    """Read a token from a file.

    Raises:
        ConfigError: the file cannot be read, or does not hold one token.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read a token from {path}: {error}") from error
    if (
        not MIN_TOKEN_CHARS <= len(text) <= MAX_TOKEN_CHARS
        or not text.isascii()
        or not text.isprintable()
        or " " in text
    ):
        raise ConfigError(f"{path} does not hold one token of {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters")
    return text


def write_token(path: Path, token: str) -> None:
    """Write a token to a file that only its owner can read; a file that exists is replaced.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_secret(path, token + "\n", "a token")


def write_secret(path: Path, text: str, what: str) -> None:
    """Write a file that only its owner can read; a file that exists is replaced in one step.

    Args:
        path: where.
        text: what it shall hold.
        what: names that in the error.

    Raises:
        ConfigError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {what} to {path}: {error}") from error
