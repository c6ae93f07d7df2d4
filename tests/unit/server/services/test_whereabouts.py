import socket
from pathlib import Path

import pytest

from common.errors import ConfigError
from server.services import whereabouts as module
from server.services.whereabouts import (
    Whereabouts,
    likely_host,
    local_host,
    outward_address,
    read_whereabouts,
    url_of,
    write_whereabouts,
)

FOUND = Whereabouts(
    local_url="https://127.0.0.1:1", url="https://h:1", certificate="/c.pem", fingerprint="A" * 43 + "="
)


def test_what_a_server_wrote_is_read_back(tmp_path: Path) -> None:
    write_whereabouts(tmp_path, FOUND)
    assert read_whereabouts(tmp_path) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["server.json"]


def test_a_file_that_is_not_there_or_is_another_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no server has run with the state directory"):
        read_whereabouts(tmp_path)
    (tmp_path / "server.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not what a server wrote: local_url"):
        read_whereabouts(tmp_path)
    (tmp_path / "server.json").unlink()
    (tmp_path / "server.json").mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        read_whereabouts(tmp_path)
    with pytest.raises(ConfigError, match="cannot write"):
        write_whereabouts(tmp_path / "missing", FOUND)


def test_urls_are_written_with_brackets_where_they_need_them() -> None:
    assert url_of("http", "h", 1) == "http://h:1"
    assert url_of("https", "::1", 2) == "https://[::1]:2"


def test_a_server_on_every_address_is_reached_by_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "outward_address", lambda: "192.0.2.9")
    assert likely_host("0.0.0.0", ("first", "second")) == "first"
    assert likely_host("0.0.0.0") == "192.0.2.9"
    assert likely_host("192.0.2.1") == "192.0.2.1"
    monkeypatch.setattr(module, "outward_address", lambda: None)
    assert likely_host("::") == socket.gethostname()
    assert [local_host(host) for host in ("0.0.0.0", "::", "h")] == ["127.0.0.1", "::1", "h"]


def test_a_host_without_a_way_out_has_no_outward_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OUTSIDE", ((socket.AF_INET, "127.0.0.1"),))
    assert outward_address() == "127.0.0.1"
    # A broadcast address takes a permission that this socket has not.
    monkeypatch.setattr(module, "_OUTSIDE", ((socket.AF_INET, "255.255.255.255"),))
    assert outward_address() is None
