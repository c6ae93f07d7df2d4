import errno
import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.services.identity import StateFolder, append_line, peek_identity, write_atomically
from common.errors import ConfigError
from common.signing import PURPOSE_CANCEL, Signer, Verifier


def test_a_new_device_gets_a_key_and_keeps_it(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    made = folder.load_identity("lab", "A")
    assert made.token is None
    assert folder.load_identity("lab", "A") == made
    expected = X25519PrivateKey.from_private_bytes(made.private_key).public_key().public_bytes_raw()
    assert made.public_key == expected
    folder.close()


def test_a_devices_signing_key_follows_from_its_one_key_and_its_group(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    made = folder.load_identity("lab", "A")
    verifier = Verifier(made.signing_key, "lab")
    assert verifier.is_signed(PURPOSE_CANCEL, b"data", Signer(made.private_key, "lab").sign(PURPOSE_CANCEL, b"data"))
    assert made.prepared("device-token").signing_key == made.signing_key
    assert folder.load_identity("lab", "A").signing_key == made.signing_key
    assert replace(made, group="other").signing_key != made.signing_key
    assert made.signing_key != made.public_key
    folder.close()


def test_the_token_outlives_a_restart(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    enrolled = folder.load_identity("lab", "A").prepared("device-token").confirmed(made=5.0)
    enrolled = enrolled.prepared("a-second-token").confirmed(made=6.0)
    assert (enrolled.token, enrolled.previous_token) == ("a-second-token", "device-token")
    assert (enrolled.fallen_back().token, enrolled.fallen_back().previous_token) == ("device-token", None)
    folder.save_identity(enrolled)
    folder.close()
    again = StateFolder(tmp_path)
    assert again.load_identity("lab", "A") == enrolled
    again.close()


def test_only_the_owner_can_read_the_identity(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.load_identity("lab", "A")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "identity.json").stat().st_mode) == 0o600
    folder.close()


def test_neither_key_nor_token_is_shown(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    shown = repr(folder.load_identity("lab", "A").prepared("device-token").confirmed(made=5.0))
    assert "device-token" not in shown
    assert "private_key" not in shown
    folder.close()


def test_a_folder_belongs_to_one_device(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.load_identity("lab", "A")
    with pytest.raises(ConfigError, match=r"belongs to device 'A' of group 'lab', not to 'B'"):
        folder.load_identity("lab", "B")
    folder.close()


def test_a_folder_serves_one_agent_at_a_time(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with pytest.raises(ConfigError, match="another agent is using the state folder"):
        StateFolder(tmp_path)
    folder.close()
    StateFolder(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot use the state folder"):
        StateFolder(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"group": "lab", "device": "A", "private_key": "AAAA", "token": null}',
        json.dumps({"group": "lab", "device": "A", "private_key": "=", "token": None}),
        json.dumps({"group": "lab", "device": "A", "private_key": "A" * 43 + "=", "token": 5}),
        *(
            json.dumps({"group": "lab", "device": "A", "private_key": "A" * 43 + "=", "token": None, **more})
            for more in (
                {"next_token": 5},
                {"token_made": "x"},
                {"server": 5},
                {"fingerprint": "00"},
                {"fingerprint": 5},
                {"group": None},
                {"group": ["lab"]},
                {"device": "no name"},
                {"token": "two words"},
                {"token": "x" * 129},
                {"next_token": "\ud800"},
                {"token_made": math.nan},
                {"token_made": math.inf},
                {"token_made": -1.0},
                {"token_made": 10**400},
            )
        ),
        "[" * 100_000,
    ],
)
def test_a_spoilt_identity_is_never_taken_for_a_new_device(tmp_path: Path, content: str) -> None:
    folder = StateFolder(tmp_path)
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(ConfigError, match="is not an agent's identity"):
        folder.load_identity("lab", "A")
    assert (tmp_path / "identity.json").read_text() == content
    folder.close()


def test_an_unreadable_or_unwritable_identity_is_named(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    (tmp_path / "identity.json").mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        folder.load_identity("lab", "A")
    (tmp_path / "identity.json").rmdir()
    made = folder.load_identity("lab", "A")
    (tmp_path / "identity.json.new").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        folder.save_identity(made)
    folder.close()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    write_atomically(target, b"new", sync=True)
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_line_that_the_disk_takes_in_part_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    write = os.write

    def half(handle: int, data: bytes) -> int:
        if len(data) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:-2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            append_line(path, "two")
    assert path.read_text() == "one\n"
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


def test_a_line_stays_apart_from_one_that_a_crash_tore(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("one\ntw")
    append_line(tmp_path / "lines", "three")
    assert (tmp_path / "lines").read_text() == "one\ntw\nthree\n"


def test_where_a_device_belongs_and_its_token_to_come_outlive_a_restart(tmp_path: Path) -> None:
    assert peek_identity(tmp_path / "none") is None
    folder = StateFolder(tmp_path)
    made = folder.load_identity("lab", "A").at("https://h:1", bytes(range(32))).prepared("token-to-come")
    folder.save_identity(made)
    assert folder.load_identity("lab", "A") == made
    assert peek_identity(tmp_path) == made
    assert "token-to-come" not in repr(made)
    folder.close()


def test_an_identity_of_the_first_form_is_read(tmp_path: Path) -> None:
    body = {"group": "lab", "device": "A", "private_key": "A" * 43 + "=", "token": "device-token"}
    (tmp_path / "identity.json").write_text(json.dumps(body))
    found = peek_identity(tmp_path)
    assert found is not None
    assert (found.token, found.next_token, found.token_made) == ("device-token", None, None)
    assert (found.server, found.fingerprint) == (None, None)
    (tmp_path / "file").touch()
    assert peek_identity(tmp_path / "file") is None
