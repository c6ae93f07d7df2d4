"""The pages keep their promises: links lead somewhere, data blocks parse, command lines name what exists."""

import doctest
import importlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
COMMANDS = {"arborcast": "agent.cli", "arborcast-server": "server.cli", "arborcast-lab": "lab.cli"}

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What ends a command inside a shell line.
_SHELL_BREAKS = {"|", "||", "&&", "&", ";", ">", ">>", "2>", "<"}


def _blocks(page: str, *languages: str) -> list[str]:
    """Return a page's fenced blocks in the given languages."""
    return [body for language, body in _FENCE.findall(_text(page)) if language in languages]


def _text(page: str) -> str:
    """Read a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def _anchors(page: str) -> set[str]:
    """Return the anchors that a page's headings make, in the way of GitHub."""
    prose = _FENCE.sub("", _text(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose)}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for target in _LINK.findall(_FENCE.sub("", _text(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: nothing at {target}"
        if anchor:
            assert anchor in _anchors(file.resolve().relative_to(ROOT).as_posix()), f"{page}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_json_and_toml_block_parses(page: str) -> None:
    for block in _blocks(page, "json"):
        json.loads(block)
    for block in _blocks(page, "toml"):
        tomllib.loads(block)


@pytest.mark.parametrize("page", PAGES)
def test_every_python_session_gives_what_the_page_says(page: str) -> None:
    failed, _ = doctest.testfile(str(ROOT / page), module_relative=False, encoding="utf-8")
    assert failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_names_a_command_and_options_that_exist(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for block in _blocks(page, "sh", "bash", "shell", "console"):
        for words in _command_lines(block):
            assert _make_verb_exists(words), f"{page}: {shlex.join(words)}"
            _check_own_command(page, words, monkeypatch, capsys)


def _command_lines(block: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block: after a `$ ` prompt if it has prompts, else every line."""
    lines = block.replace("\\\n", " ").splitlines()
    if any(line.lstrip().startswith("$ ") for line in lines):
        lines = [line.lstrip()[2:] for line in lines if line.lstrip().startswith("$ ")]
    for line in lines:
        words: list[str] = []
        for word in shlex.split(line, comments=True):
            if word in _SHELL_BREAKS:
                yield words
                words = []
            else:
                words.append(word)
        yield words


def _make_verb_exists(words: list[str]) -> bool:
    """Tell whether each verb that a `make` line names is one of the Makefile's; true of any other line."""
    if not words or words[0] != "make":
        return True
    verbs = set(re.findall(r"^([a-z]+):", _text("Makefile"), re.MULTILINE))
    return all(word in verbs for word in words[1:] if "=" not in word and not word.startswith("-"))


def _check_own_command(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hold a line that runs one of our commands against that command's own help."""
    if not words or Path(words[0]).name not in COMMANDS:
        return
    command = Path(words[0]).name
    verbs = [word for word in words[1:2] if not word.startswith("-")]
    text = _help(command, *verbs, monkeypatch=monkeypatch, capsys=capsys)
    for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{page}: {command} has no {option}"


_known: dict[tuple[str, ...], str] = {}


def _help(*words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `--help` prints, failing where the command does not exist."""
    if words not in _known:
        main = importlib.import_module(COMMANDS[words[0]]).main
        monkeypatch.setattr(sys, "argv", [*words, "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert not ended.value.code, f"no such command: {shlex.join(words)}: {printed.err}"
        _known[words] = _COLOUR.sub("", printed.out)
    return _known[words]
