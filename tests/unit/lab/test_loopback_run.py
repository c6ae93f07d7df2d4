"""The run is driven here against a system that is made up; tests/system runs it against real processes."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.graph import AcyclicGraph, Tree
from common.ids import DeviceId, LinkKey
from lab.happenings import Happening, Verb
from lab.loopback_run import COUNTED, LoopbackRun
from lab.processes import ChildDied
from lab.progress import QuietWatcher
from lab.report import Report
from lab.scenario import LinkFigures, Scenario

LINE = Scenario(name="line", devices=("A", "B", "C"), links={("A", "B"): LinkFigures(), ("B", "C"): LinkFigures()})
DATA = b"some bytes"
GRAPH = AcyclicGraph(7, ("A", "B", "C"), (Tree("throughput", (("A", "B"), ("B", "C"))),))


def counted(peer: str, **counters: int) -> dict[str, Any]:
    return {"peer": peer, **dict.fromkeys(COUNTED, 0), **counters}


class FakeSystem:
    """Three agents in memory; each test says what becomes of the file."""

    backend = "loopback"
    shaped = False

    def __init__(self, folder: Path, scenario: Scenario = LINE) -> None:
        self.scenario = scenario
        self.folder = folder
        self.happened: list[str] = []
        self.looks = 0
        self.dead: list[DeviceId] = []
        self.silent: list[DeviceId] = []
        self.failure: ChildDied | None = None
        self.states: dict[DeviceId, dict[str, Any]] = {}
        self.changes: dict[DeviceId, dict[str, Any]] = {}
        self.answer: httpx.Response | Exception = httpx.Response(200, text='{"event": "opened", "stream": "5a"}\n')
        self.the_graph: AcyclicGraph | None = GRAPH
        self.links: dict[DeviceId, list[dict[str, Any]]] = {
            "A": [counted("B", chunks_sent=10, data_bytes_sent=1000)],
            "B": [counted("A", chunks_received=10), counted("C", chunks_sent=9, pulled_sent=1, data_bytes_sent=1100)],
            "C": [counted("B", chunks_received=10, duplicates_received=2)],
        }

    def arrive(self, device: DeviceId, data: bytes = DATA) -> None:
        self.received(device).mkdir(exist_ok=True)
        (self.received(device) / "file.bin").write_bytes(data)

    def received(self, device: DeviceId) -> Path:
        return self.folder / device

    def ethernet_bytes(self) -> dict[LinkKey, tuple[int, int]]:
        return {}

    def access_bytes(self) -> dict[DeviceId, tuple[int, int]]:
        self.looks += 1
        return {"B": (100 * self.looks, 10 * self.looks)}

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def running(self, device: DeviceId) -> bool:
        return device not in self.dead

    def client(self, device: DeviceId) -> httpx.AsyncClient:
        def answer(request: httpx.Request) -> httpx.Response:
            assert device == "A"
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://agent")

    async def happen(self, happening: Happening) -> None:
        self.happened.append(str(happening))

    async def status(self, device: DeviceId) -> Mapping[str, Any] | None:
        return None if device in self.dead or device in self.silent else {"links": self.links[device]}

    async def ask_agent(self, device: DeviceId, resource: str) -> Mapping[str, Any] | None:
        if resource == "/changes":
            return None if device in self.dead else self.changes.get(device)
        assert resource == "/streams/5a"
        return self.states.get(device)

    async def graph(self) -> AcyclicGraph | None:
        return self.the_graph


async def run(system: FakeSystem, *, within: float = 10.0) -> Report:
    file = system.folder / "file.bin"
    file.write_bytes(DATA)
    return await LoopbackRun(
        system,  # type: ignore[arg-type]
        file=file,
        source="A",
        within=within,
        watcher=QuietWatcher(),
    ).run()


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    made = FakeSystem(tmp_path)
    made.arrive("B")
    made.arrive("C")
    return made


async def test_the_lab_hashes_every_file_itself(system: FakeSystem) -> None:
    system.arrive("C", b"other bytes")
    report = await run(system)
    assert report.devices["B"].sha256_ok
    assert not report.devices["C"].sha256_ok
    assert report.devices["C"].note == "the hash is wrong"
    assert hashlib.sha256(DATA).digest() != hashlib.sha256(b"other bytes").digest()


async def test_the_counters_of_both_ends_make_a_channel(system: FakeSystem) -> None:
    report = await run(system)
    first, second = report.channels["A", "B"], report.channels["B", "C"]
    assert (first.chunks, first.bytes, first.duplicates, first.repairs) == (10, 1000, 0, 0)
    assert (second.chunks, second.bytes, second.duplicates, second.repairs) == (9, 1100, 2, 1)
    assert first.unicast_bytes == 2 * 1050
    assert report.epoch == 7
    assert not report.ok


async def test_what_a_dead_agent_sent_is_known_from_its_peer(system: FakeSystem) -> None:
    system.dead.append("A")
    report = await run(system)
    assert report.channels["A", "B"].chunks == 10


async def test_without_a_server_there_is_no_graph_in_the_report(system: FakeSystem) -> None:
    system.the_graph = None
    report = await run(system)
    assert report.epoch is None


async def test_a_device_that_refuses_the_file_is_told_with_its_reason(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.arrive("B")
    system.states["C"] = {"held_bytes": 3, "state": "failed", "reason": "no-space"}
    report = await run(system)
    assert report.devices["C"].note == "failed: no-space"
    assert report.trouble == []
    assert not report.ok


async def test_a_file_that_does_not_arrive_in_time_is_told(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.states["B"] = {"held_bytes": 3, "state": "receiving", "reason": ""}
    system.dead.append("C")
    report = await run(system, within=0.1)
    assert report.trouble == ["not every device had the file after 0.1 s"]
    assert report.devices["B"].note == "still receiving"
    assert report.devices["C"].note == "the agent is dead"


async def test_a_process_that_died_ends_the_run(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.failure = ChildDied("agent C ended by SIGSEGV; its log is empty")
    report = await run(system)
    assert report.trouble == ["agent C ended by SIGSEGV; its log is empty"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(404, text="no such channel"), "agent A refused the file: no such channel"),
        (httpx.ConnectError("gone"), "agent A does not take the file"),
        (httpx.Response(200, text='{"event": "odd"}\n'), "agent A took the file and named no stream"),
    ],
)
async def test_a_source_that_does_not_take_the_file_is_told(
    tmp_path: Path, answer: httpx.Response | Exception, expected: str
) -> None:
    system = FakeSystem(tmp_path)
    system.answer = answer
    report = await run(system)
    assert report.trouble[0].startswith(expected)
    assert not report.ok


async def test_happenings_come_at_their_times_and_the_run_waits_for_them(tmp_path: Path) -> None:
    happenings = (Happening(0.0, Verb.KILL, device="C"), Happening(0.05, Verb.START, device="C"))
    system = FakeSystem(tmp_path, replace(LINE, happenings=happenings))
    system.arrive("B")
    system.arrive("C")
    await run(system)
    assert system.happened == ["kill C", "start C"]


async def test_a_happening_that_fails_ends_the_run(tmp_path: Path) -> None:
    class Broken(FakeSystem):
        async def happen(self, happening: Happening) -> None:
            await asyncio.sleep(0)
            raise ChildDied("agent C was not ready")

    report = await run(Broken(tmp_path, replace(LINE, happenings=(Happening(0.0, Verb.START, device="C"),))))
    assert report.trouble == ["agent C was not ready"]


async def test_repairs_of_what_a_receiver_held_are_needless(system: FakeSystem) -> None:
    system.links["C"] = [counted("B", chunks_received=100, repairs_received=100)]
    report = await run(system)
    assert report.channels["B", "C"].needless == 100
    assert report.wasteful == [("B", "C")]
    assert not report.ok


async def test_an_agent_that_runs_and_tells_no_status_is_trouble(
    system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.loopback_run.COUNTERS_S", 0.1)
    system.silent.append("C")
    report = await run(system)
    assert report.trouble == ["agent C runs and tells no status"]
    assert not report.ok


class Restarting(FakeSystem):
    """C's counters begin anew when it is killed."""

    async def happen(self, happening: Happening) -> None:
        await super().happen(happening)
        assert happening.device is not None
        if happening.verb is Verb.KILL:
            self.dead = [happening.device]
            self.links["C"] = [counted("B", duplicates_received=1)]
        else:
            self.dead = []


def restarts(*verbs: Verb) -> Scenario:
    return replace(LINE, happenings=tuple(Happening(0.0, verb, device="C") for verb in verbs))


@pytest.mark.parametrize(
    ("verbs", "duplicates"),
    [
        ((Verb.KILL,), 2),
        ((Verb.KILL, Verb.START), 3),
        ((Verb.KILL, Verb.KILL, Verb.START), 3),
        ((Verb.KILL, Verb.START, Verb.KILL), 3),
    ],
)
async def test_what_an_agent_counted_before_it_was_killed_still_counts(
    tmp_path: Path, verbs: tuple[Verb, ...], duplicates: int
) -> None:
    system = Restarting(tmp_path, restarts(*verbs))
    system.arrive("B")
    system.arrive("C")
    report = await run(system)
    assert report.channels["B", "C"].duplicates == duplicates
    assert report.trouble == []


async def test_an_agent_that_tells_nothing_before_it_is_killed_is_trouble(tmp_path: Path) -> None:
    system = Restarting(tmp_path, restarts(Verb.KILL))
    system.silent.append("C")
    system.arrive("B")
    system.arrive("C")
    report = await run(system)
    assert report.trouble == ["agent C told no status before it was killed"]


async def test_a_process_that_dies_after_the_file_arrived_is_told(system: FakeSystem) -> None:
    class Late(FakeSystem):
        async def graph(self) -> AcyclicGraph | None:
            self.failure = ChildDied("agent C ended by SIGSEGV; its log is empty")
            return await super().graph()

    report = await run(Late(system.folder))
    assert all(outcome.sha256_ok for outcome in report.devices.values())
    assert report.trouble == ["agent C ended by SIGSEGV; its log is empty"]


async def test_what_agents_noticed_becomes_the_outcome_of_what_happened(tmp_path: Path) -> None:
    links = {pair: LinkFigures() for pair in (("A", "B"), ("A", "C"), ("B", "C"))}
    cut = Happening(0.0, Verb.CUT, link=("A", "B"))
    system = FakeSystem(tmp_path, replace(LINE, links=links, happenings=(cut,)))
    loop = asyncio.get_running_loop()

    async def happen(happening: Happening) -> None:
        at = loop.time()
        told = {"now": at, "graphs": [], "links": [{"at": at + 0.25, "peer": "A", "state": "suspect"}]}
        for device in "BC":
            arrivals = {"last_at": at + 0.6, "silences": [[at, at + 0.5]]}
            system.changes[device] = {**told, "streams": {"5a": arrivals}}
            system.arrive(device)

    system.happen = happen  # type: ignore[method-assign]
    report = await run(system)
    (outcome,) = report.events
    assert (outcome.event, outcome.cut_off) == ("cut A-B", ("B", "C"))
    assert outcome.detected_s == pytest.approx(0.25, abs=0.01)
    assert outcome.recovered_s is not None


async def test_what_an_agent_noticed_is_asked_for_before_it_is_killed(tmp_path: Path) -> None:
    kills = (Happening(0.0, Verb.KILL, device="B"),)
    system = FakeSystem(tmp_path, replace(LINE, happenings=kills))
    system.the_graph = None
    system.arrive("B")
    system.arrive("C")
    note = {"at": 0.0, "peer": "A", "state": "open"}
    system.changes["B"] = {"now": 0.0, "graphs": [], "links": [note], "streams": {}}
    report = await run(system)
    assert [(event.event, event.cut_off) for event in report.events] == [("kill B", ())]


async def test_access_links_are_counted_from_the_beginning_of_the_run_on(system: FakeSystem) -> None:
    assert (await run(system)).accesses == {"B": (100, 10)}
