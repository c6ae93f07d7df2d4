"""The name of the host's present run."""

from pathlib import Path

from agent.services.boots import this_boot


def test_a_run_of_the_host_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("f5e0\n")
    assert this_boot(tmp_path / "boot_id") == "f5e0"
    assert this_boot() == this_boot()


def test_where_nothing_tells_it_has_none(tmp_path: Path) -> None:
    assert this_boot(tmp_path / "nothing") == ""
