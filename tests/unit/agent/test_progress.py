from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from agent.progress import DeviceBars, NoProgress

RECEIVING: dict[str, dict[str, Any]] = {
    "B": {"state": "receiving", "held_bytes": 512, "reason": ""},
    "C": {"state": "waiting", "held_bytes": 0, "reason": ""},
}


def bars(size_bytes: int) -> tuple[DeviceBars, StringIO]:
    out = StringIO()
    return DeviceBars(Console(file=out, force_terminal=True, width=100), size_bytes), out


def test_each_device_has_a_bar_that_follows_it() -> None:
    shown, out = bars(1024)
    with shown:
        shown.update(RECEIVING)
        shown.update({"B": {"state": "verified", "held_bytes": 1000, "reason": ""}})
    text = out.getvalue()
    assert "512 bytes" in text or "0.5/1.0 KiB" in text
    assert "verified" in text
    assert "waiting" in text


@pytest.mark.parametrize("state", ["waiting", "verified"])
def test_an_empty_file_is_full_when_it_is_verified(state: str) -> None:
    shown, out = bars(0)
    with shown:
        shown.update({"B": {"state": state, "held_bytes": 0, "reason": ""}})
        task = shown._progress.tasks[0]
        assert task.finished == (state == "verified")
    assert state in out.getvalue()


def test_nothing_is_shown_to_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    with NoProgress() as shown:
        shown.update(RECEIVING)
    assert capsys.readouterr() == ("", "")
