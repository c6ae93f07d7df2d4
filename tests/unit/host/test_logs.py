import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import ConfigError
from host.logs import check_log, formatter, is_journal, set_up_log


def record(level: int = logging.INFO, message: str = "said %s", **fields: object) -> logging.LogRecord:
    body = {
        "name": "agent.app",
        "levelno": level,
        "levelname": logging.getLevelName(level),
        "created": 1_700_000_000.25,
    }
    return logging.makeLogRecord({**body, "msg": message, "args": ("this",) if "%s" in message else (), **fields})


def test_a_line_for_people_has_the_time() -> None:
    line = formatter("text", journal=False).format(record())
    assert line.endswith(" INFO agent.app said this")
    assert line.startswith("2023-11-1")


def test_the_journal_gets_priorities_and_no_time() -> None:
    form = formatter("text", journal=True)
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    priorities = [form.format(record(level))[:3] for level in levels]
    assert priorities == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert form.format(record(message="one\ntwo")) == "<6>agent.app one\n<6>two"


def test_json_is_one_object_a_line_with_the_fields_that_a_record_brings() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        error = sys.exc_info()
    line = formatter("json", journal=False).format(record(message="a\nb", peer="B", path=Path("x"), exc_info=error))
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("error").endswith("ValueError: why")
    assert found == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "agent.app",
        "message": "a\nb",
        "peer": "B",
        "path": "x",
    }
    assert json.loads(formatter("json", journal=True).format(record()).removeprefix("<6>"))["message"] == "said this"


def test_the_journal_is_known_by_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_journal(stream, {})
    assert not is_journal(stream, {"JOURNAL_STREAM": "1:1"})


def test_levels_and_forms_that_there_are_not_are_refused() -> None:
    check_log("debug", "json")
    with pytest.raises(ConfigError, match="log level 'loud' is not one of debug, info, warning, error"):
        check_log("loud", "text")
    with pytest.raises(ConfigError, match="log format 'xml' is neither text nor json"):
        check_log("info", "xml")


@contextmanager
def log_as_at_the_start() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("noisy").setLevel(logging.NOTSET)


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with log_as_at_the_start():
        set_up_log("info", "json", quiet=("noisy",))
        logging.getLogger("x").info("hear %d", 1)
        logging.getLogger("x").debug("not this")
        logging.getLogger("noisy").info("nor this")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["hear 1"]
