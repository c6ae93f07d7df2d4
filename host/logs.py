"""The log: lines for people or JSON for programs, and the forms that systemd's journal reads."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from common.errors import ConfigError

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
TEXT_FORM: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
JOURNAL_FORM: Final = "%(name)s %(message)s"

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY: Final = 7


class JsonForm(logging.Formatter):
    """One object a line: time, level, logger, message, what a record brings besides, and an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        body: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        body.update((name, value) for name, value in vars(record).items() if name not in _OWN and name not in body)
        if record.exc_info:
            body["error"] = self.formatException(record.exc_info)
        return json.dumps(body, default=str)


class JournalForm(logging.Formatter):
    """Puts the priority in front of every line of another form, as sd-daemon(3) says.

    Args:
        form: how a record is written.
    """

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG_PRIORITY)
        return "\n".join(f"<{priority}>{line}" for line in self._form.format(record).split("\n"))


def check_log(level: str, form: str) -> None:
    """Refuse a level or a form that there is not.

    Raises:
        ConfigError: the level or form is unknown.
    """
    if level not in LOG_LEVELS:
        raise ConfigError(f"log level {level!r} is not one of {', '.join(LOG_LEVELS)}")
    if form not in LOG_FORMATS:
        raise ConfigError(f"log format {form!r} is neither text nor json")


def set_up_log(level: str, form: str, *, quiet: Iterable[str] = ()) -> None:
    """Send the log to standard error.

    Args:
        level: one of `LOG_LEVELS`.
        form: one of `LOG_FORMATS`.
        quiet: loggers of which only warnings are wanted: at a lower level some write headers, and tokens are in these.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(form, journal=is_journal(sys.stderr, os.environ)))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)


def formatter(form: str, *, journal: bool) -> logging.Formatter:
    """Return what writes records.

    Args:
        form: one of `LOG_FORMATS`.
        journal: the journal reads them: it has a clock of its own, and wants priorities.
    """
    if form == "json":
        plain: logging.Formatter = JsonForm()
    else:
        plain = logging.Formatter(JOURNAL_FORM if journal else TEXT_FORM)
    return JournalForm(plain) if journal else plain


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
