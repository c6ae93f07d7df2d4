"""A script stands in for ``docker``: it writes down how it is called and answers as each test wants."""

import ipaddress
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab.compose_engine import Engine, EngineRefused, find_engine, run
from lab.compose_plan import project_of
from lab.netns_host import this_owner
from lab.netns_plan import Owner


class Programs:
    """A folder of scripts that is the whole PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "calls"

    def add(self, name: str, *cases: tuple[str, str]) -> None:
        """Write a program: by the beginning of its arguments, what it does; anything else succeeds and says nothing."""
        lines = [f"  {start!r}*) {does};;" for start, does in cases]
        body = "\n".join(["#!/bin/sh", f'echo "{name} $*" >>{self.log}', 'case "$*" in', *lines, "esac"])
        (self.folder / name).write_text(body + "\n")
        (self.folder / name).chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("ARBORCAST_COMPOSE", raising=False)
    return Programs(tmp_path)


@pytest.fixture
def engine(programs: Programs) -> Engine:
    programs.add("docker")
    return Engine("docker", ("docker", "compose"))


def test_an_engine_with_the_new_compose_is_found(programs: Programs) -> None:
    programs.add("docker")
    found = find_engine()
    assert found.compose == (found.docker, "compose")


def test_the_old_compose_is_taken_where_there_is_no_new_one(programs: Programs) -> None:
    programs.add("docker", ("compose", "exit 1"))
    with pytest.raises(ConfigError, match="neither `docker compose` nor `docker-compose` is here"):
        find_engine()
    programs.add("docker-compose")
    assert find_engine().compose == (str(programs.folder / "docker-compose"),)


def test_a_compose_that_is_named_is_taken(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("docker")
    monkeypatch.setenv("ARBORCAST_COMPOSE", "old-compose --ansi never")
    assert find_engine().compose == ("old-compose", "--ansi", "never")


def test_a_host_without_docker_is_told(programs: Programs) -> None:
    with pytest.raises(ConfigError, match="no program docker on the PATH"):
        find_engine()


def test_an_engine_that_does_not_answer_is_told_in_its_own_words(programs: Programs) -> None:
    programs.add("docker", ("version", "echo 'Cannot connect to the daemon' >&2; exit 1"))
    with pytest.raises(ConfigError, match="no engine answers: Cannot connect to the daemon"):
        find_engine()


def test_an_engine_elsewhere_is_refused(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("docker")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    with pytest.raises(ConfigError, match=r"has to be on this host; DOCKER_HOST says tcp://192"):
        find_engine()


def test_an_image_that_is_missing_is_told_with_what_makes_it(programs: Programs) -> None:
    programs.add("docker", ("image inspect --format {{.Id}} arborcast-agent", "exit 1"))
    with pytest.raises(ConfigError, match="no image arborcast-agent; make it with: make images"):
        find_engine().check_images()


def test_compose_makes_and_removes_a_project(programs: Programs, engine: Engine) -> None:
    engine.make("p", Path("c.json"))
    engine.remove("p", Path("c.json"))
    assert programs.calls == [
        "docker compose -p p -f c.json up --no-start",
        "docker compose -p p -f c.json down --volumes --timeout 1",
    ]


def test_a_container_is_given_a_network_with_an_address_or_with_any(programs: Programs, engine: Engine) -> None:
    engine.connect("n", "c", "198.18.0.2")
    engine.connect("n", "c", None)
    assert programs.calls == ["docker network connect --ip 198.18.0.2 n c", "docker network connect n c"]


def test_what_a_container_is_asked_is_read(programs: Programs, engine: Engine) -> None:
    programs.add(
        "docker",
        ("inspect --format {{.State.Pid}} c", "echo 77"),
        ("inspect --format {{.State.Pid}} dead", "echo 0"),
        ("inspect --format {{.State.Pid}} gone", "exit 1"),
        ("inspect", "echo 'a_link0 a_link1 '"),
        ("port c", "echo 127.0.0.1:49153"),
        ("exec c python3", """echo '{"198.18.0.2": 12}'"""),
    )
    assert engine.networks("c") == ["a_link0", "a_link1"]
    assert (engine.pid("c"), engine.pid("dead"), engine.pid("gone")) == (77, None, None)
    assert engine.port("c", 8640) == 49153
    assert engine.sent_bytes("c") == {"198.18.0.2": 12}
    with pytest.raises(EngineRefused, match="port 8640 of the container other is not published"):
        engine.port("other", 8640)


def test_the_engines_networks_are_read(programs: Programs, engine: Engine) -> None:
    assert engine.subnets() == []
    programs.add("docker", ("network ls", "echo 1; echo 2"), ("network inspect", "echo 172.17.0.0/16 fd00::/64"))
    assert engine.subnets() == [ipaddress.IPv4Network("172.17.0.0/16")]


def test_only_what_belongs_to_a_run_that_ended_is_swept_away(programs: Programs, engine: Engine) -> None:
    assert engine.sweep() == []
    dead, alive = project_of(Owner(2**22 + 1, 5), 1), project_of(this_owner(), 1)
    programs.add(
        "docker",
        ("ps --all --format", f"echo {dead}; echo {alive}; echo arborcast; echo"),
        ("network ls --format", f"echo {dead}"),
        ("ps --all --quiet", "echo c1; echo c2"),
    )
    assert engine.sweep() == [dead]
    assert [call for call in programs.calls if " rm " in call] == ["docker rm --force --volumes c1 c2"]


def test_what_a_command_says_last_is_told(programs: Programs) -> None:
    programs.add("docker", ("loud", "echo first >&2; echo the reason >&2; exit 3"), ("silent", "exit 3"))
    with pytest.raises(EngineRefused, match=r"^the reason$"):
        run(["docker", "loud"], within=30)
    with pytest.raises(EngineRefused, match="`docker silent` ended with exit code 3"):
        run(["docker", "silent"], within=30)
    with pytest.raises(EngineRefused, match="cannot run `missing`"):
        run(["missing"], within=30)


def test_a_command_that_does_not_end_is_told() -> None:
    with pytest.raises(EngineRefused, match=r"`sleep 60` did not end within 0\.05 s"):
        run(["sleep", "60"], within=0.05)
