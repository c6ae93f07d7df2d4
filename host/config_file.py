"""A daemon's settings from a TOML file, where flags and environment do not say otherwise.

A key of the file is a flag's name without its dashes. Which keys there are, and what each may hold, is read off the
function that takes the flags, so that no second list can fall behind. The values go through the same parsers: the
function is called with nothing but what the file says. Only when that fails is a culprit looked for: the first key
that fails with the same sentence by itself, or else the one with which, read from the top, the sentence appears.
"""

from __future__ import annotations

import difflib
import inspect
import os
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from common.errors import ConfigError
from common.limits import MAX_CONFIG_FILE_BYTES
from host.toml_lines import TomlLines, not_toml

Value = str | int | bool | list[str]

_READABLE_BY_OTHERS: Final = 0o004
_NOT_IN_A_FILE: Final = ("ctx", "config")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    Attributes:
        key: its name in a file, such as ``max-rate``.
        kind: what a file has to hold: a text, a whole number, or true or false.
        many: whether it may be several texts.
    """

    key: str
    kind: type[str] | type[int] | type[bool]
    many: bool

    def check(self, value: object) -> str | None:
        """Return what would have been right, or None if it is."""
        if self.many:
            several = isinstance(value, list) and all(isinstance(each, str) for each in value)
            return None if several or isinstance(value, str) else 'a text or a list of texts, such as ["one", "two"]'
        if type(value) is self.kind:
            return None
        return {str: "a text in quotes", int: "a whole number", bool: "true or false"}[self.kind]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What one file says, each key known and each value of its kind.

    Attributes:
        path: the file.
        values: by parameter name, such as ``max_rate``, in the order of the file.
        lines: the line of each, from 1.
    """

    path: Path
    values: Mapping[str, Value]
    lines: Mapping[str, int]

    def at(self, name: str, sentence: str) -> ConfigError:
        """Return an error that points at the line of a value."""
        return ConfigError(f"{self.path}:{self.lines[name]}: {sentence}")


class Configuration:
    """The settings of one command, and how a file gives them.

    Args:
        settle: takes the flags, and raises ConfigError if they cannot be used; its parameters are the flags, annotated
            for typer. It is called for checks too, so it must start nothing.
        secrets: parameters whose values must not be read by others, unless they are ``@FILE``, which names the secret.
        stand_ins: returns values for what has to be given and is not in a file, where a file is checked by itself.
    """

    def __init__(
        self,
        settle: Callable[..., object],
        *,
        secrets: Iterable[str] = (),
        stand_ins: Callable[[Mapping[str, Value]], Mapping[str, Value]],
    ) -> None:
        self.options = options_of(settle)
        self._secrets = frozenset(secrets)
        self._stand_ins = stand_ins
        # A command line of its own, which no variable of the environment reaches.
        checker = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        checker.command()(settle)
        self._checker = typer.main.get_command(checker)

    def load(self, ctx: typer.Context, path: Path | None) -> Path | None:
        """Let a file give a command's defaults: the eager callback of ``--config``.

        Raises:
            ConfigError: it cannot be read, has a key that is no setting, or a value of the wrong kind or range.
        """
        if path is not None and not ctx.resilient_parsing:
            file = self.read(path)
            self._check_ranges(file)
            ctx.default_map = dict(file.values)
        return path

    def check(self, path: Path) -> ConfigFile:
        """Read a file and try everything in it.

        Raises:
            ConfigError: it cannot be used; the sentence names the line.
        """
        file = self.read(path)
        self._check_ranges(file)
        error = self._try(file.values)
        if error is not None:
            raise self._locate(file, str(error))
        return file

    def blame(self, path: Path | None, error: ConfigError) -> ConfigError:
        """Return the error of a command, pointed at the file's line if the file alone is to blame."""
        if path is None:
            return error
        try:
            file = self.read(path)
        except ConfigError:
            return error
        return self._locate(file, str(error)) if str(self._try(file.values)) == str(error) else error

    def read(self, path: Path) -> ConfigFile:
        """Read a file as far as keys and kinds.

        Raises:
            ConfigError: it cannot be read, or a key or value is not what a setting is.
        """
        text, mode = _read(path)
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line, what = not_toml(text, str(error))
            raise ConfigError(f"{path}:{line}: not valid TOML: {what}") from error
        lines = TomlLines(text)
        for key, value in document.items():
            wrong = self._wrong(key, value)
            if wrong is not None:
                raise ConfigError(f"{path}:{lines.line((key,))}: {wrong}")
        file = ConfigFile(
            path,
            {
                _name(key): [value] if self._many(key) and isinstance(value, str) else value
                for key, value in document.items()
            },
            {_name(key): lines.line((key,)) for key in document},
        )
        for name, value in file.values.items():
            named = isinstance(value, str) and value.startswith("@")
            if name in self._secrets and not named and mode & _READABLE_BY_OTHERS:
                raise file.at(
                    name, f"everybody on this host may read this file, and {_key(name)} is a secret: chmod o-rwx {path}"
                )
        return file

    def _wrong(self, key: str, value: object) -> str | None:
        option = self.options.get(_name(key))
        if option is None or option.key != key:
            near = difflib.get_close_matches(key, [each.key for each in self.options.values()], 1)
            return f"no setting is called {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        right = option.check(value)
        return None if right is None else f"{key} has to be {right}, not {_shown(value)}"

    def _many(self, key: str) -> bool:
        return self.options[_name(key)].many

    def _check_ranges(self, file: ConfigFile) -> None:
        """Refuse what the command line itself would refuse, such as a number out of its range."""
        for name, value in file.values.items():
            error = self._try({name: value})
            if isinstance(error, _OutOfRange):
                raise file.at(name, f"{_key(name)}: {error}")

    def _locate(self, file: ConfigFile, sentence: str) -> ConfigError:
        """Point at the value that is to blame for a sentence."""
        for name, value in file.values.items():
            if str(self._try({name: value})) == sentence:
                return file.at(name, sentence)
        some: dict[str, Value] = {}
        for name, value in file.values.items():
            some[name] = value
            if str(self._try(some)) == sentence:
                return file.at(name, sentence)
        return ConfigError(f"{file.path}: {sentence}")

    def _try(self, values: Mapping[str, Value]) -> ConfigError | None:
        """Settle some values and no others; return what is wrong with them."""
        given = {**self._stand_ins(values), **values}
        try:
            self._checker.main([], prog_name="check", standalone_mode=False, default_map=given)
        except ConfigError as error:
            return error
        except typer.BadParameter as error:
            return _OutOfRange(error.message.removesuffix("."))
        return None


class _OutOfRange(ConfigError):
    """What the command line refuses before anybody looks at it."""


def options_of(settle: Callable[..., object]) -> dict[str, Option]:
    """Return the settings that a function takes as flags, by parameter name."""
    hints = typing.get_type_hints(settle)
    found = {}
    for name in inspect.signature(settle).parameters:
        if name not in _NOT_IN_A_FILE:
            kinds = {kind for kind in (hints[name], *typing.get_args(hints[name])) if kind in (bool, int)}
            many = any(typing.get_origin(kind) is list for kind in (hints[name], *typing.get_args(hints[name])))
            found[name] = Option(_key(name), kinds.pop() if kinds else str, many)
    return found


def _read(path: Path) -> tuple[str, int]:
    """Return a file's text and its mode."""
    try:
        with path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(MAX_CONFIG_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_CONFIG_FILE_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_CONFIG_FILE_BYTES} bytes, the most that a configuration may have"
        )
    try:
        return data.decode(), mode
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8") from error


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _key(name: str) -> str:
    return name.replace("_", "-")


def _name(key: str) -> str:
    return key.replace("-", "_")
