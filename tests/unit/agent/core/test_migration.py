"""Sessions that move: to where a peer speaks from, and to a nearer candidate."""

from agent.core.migration import MOST_TRIED, MOST_WAITING
from common.frames import encode_frame
from common.link_frames import Probe
from common.messages import Roster
from common.path_frames import PathAnswer, PathChallenge
from common.stream_frames import Stop
from tests.harness.mesh import Mesh, forged

MOVED = ("10.1.0.2", 4000)
"""Another address that leads to B."""
PROBE = Probe(1, 0, 0, 1, 0, 250, 0)


def linked() -> Mesh:
    return Mesh("A-B").linked()


def in_use(mesh: Mesh) -> tuple[str, int]:
    return mesh.hop("A", "B").session.address


def speak_from(mesh: Mesh, *frames: Probe | PathChallenge | PathAnswer | Stop, source: tuple[str, int] = MOVED) -> None:
    mesh.inject("A", mesh.sealed("B", "A", b"".join(encode_frame(frame) for frame in frames)), source=source)


def sent_to(mesh: Mesh, address: tuple[str, int]) -> int:
    """Count the datagrams that A has waiting for an address, and take them."""
    found = 0
    while (waiting := mesh.node("A").peers.migration.poll()) is not None:
        found += waiting[0] == address
    return found


def test_a_peer_that_speaks_from_elsewhere_is_asked_there_and_followed() -> None:
    mesh = linked()
    mesh.drop = lambda crossing: crossing.source == "B"
    speak_from(mesh, PROBE)
    assert in_use(mesh) == mesh.address("B")
    mesh.drop = lambda _: False
    mesh.run(0.5)
    # B was never really elsewhere: what it says next comes from where it is, and the session goes back there.
    assert mesh.node("A").peers.migration.moves == 2
    assert in_use(mesh) == mesh.address("B")


def test_a_session_that_has_moved_sends_to_the_new_address_and_knows_the_peer_there() -> None:
    mesh = linked()
    speak_from(mesh, PROBE)
    mesh.until(lambda: in_use(mesh) == MOVED)
    peers = mesh.node("A").peers
    assert peers.by_address == {MOVED: mesh.hop("A", "B")}
    before = dict(mesh.drops("A"))
    speak_from(mesh, PROBE)
    assert mesh.drops("A") == before


def test_a_new_host_is_a_new_path_and_a_new_port_is_not() -> None:
    for address, anew in ((MOVED, True), (("10.0.0.2", 4000), False)):
        mesh = linked()
        hop = mesh.hop("A", "B")
        if not anew:
            speak_from(mesh, PROBE, source=("10.0.0.2", 4000))
            hop.move(("10.0.0.2", 9), None, mesh.now)
            mesh.node("A").peers.by_address.clear()
        mtu, controller = hop.mtu, hop._controller
        speak_from(mesh, PROBE, source=address)
        mesh.until(lambda address=address, hop=hop: hop.session.address == address)  # type: ignore[misc]
        assert (hop.mtu is not mtu, hop._controller is not controller) == (anew, anew)


def test_a_question_about_a_path_is_answered_where_it_came_from_and_moves_nothing() -> None:
    mesh = linked()
    speak_from(mesh, PathChallenge(b"question"))
    mesh.run(0.3)
    assert mesh.node("A").peers.migration.moves == 0
    to_moved = [crossing for crossing in mesh.crossings if crossing.source == "A" and crossing.target == "B"]
    assert to_moved
    assert in_use(mesh) == mesh.address("B")


def test_an_older_datagram_from_elsewhere_is_no_sign_that_the_peer_moved() -> None:
    mesh = linked()
    older = mesh.sealed("B", "A", encode_frame(PROBE))
    mesh.say("B", "A", PROBE)
    mesh.inject("A", older, source=MOVED)
    assert sent_to(mesh, MOVED) == 0
    mesh.run(0.3)
    assert mesh.node("A").peers.migration.moves == 0


def test_forgeries_and_replays_from_elsewhere_are_counted_and_get_no_answer() -> None:
    mesh = linked()
    datagram = mesh.sealed("B", "A", encode_frame(PROBE))
    mesh.inject("A", forged(datagram), source=MOVED)
    mesh.inject("A", forged(datagram, at=1), source=MOVED)
    assert mesh.drops("A") == {"control-from-stranger": 2}
    mesh.inject("A", datagram, source=mesh.address("B"))
    mesh.inject("A", datagram, source=MOVED)
    assert mesh.drops("A") == {"control-from-stranger": 3}
    assert sent_to(mesh, MOVED) == 0


def test_addresses_the_peer_speaks_from_are_not_all_asked_at_once() -> None:
    mesh = linked()
    mesh.drop = lambda _: True
    speak_from(mesh, PROBE)
    before = len(mesh.crossings)
    speak_from(mesh, PROBE)
    assert len([each for each in mesh.crossings[before:] if each.source == "A"]) == 0


def test_an_answer_that_nobody_asked_for_moves_nothing() -> None:
    mesh = linked()
    speak_from(mesh, PathAnswer(b"question"))
    assert in_use(mesh) == mesh.address("B")


def test_of_several_challenges_in_a_datagram_one_is_answered() -> None:
    mesh = linked()
    challenges = [PathChallenge(number.to_bytes(8, "big")) for number in range(100)]
    datagram = mesh.sealed("B", "A", b"".join(encode_frame(frame) for frame in challenges))
    mesh.node("A").receive_datagrams([(datagram, MOVED)], now=mesh.now)
    assert sent_to(mesh, MOVED) == 1
    assert mesh.drops("A") == {"pathchallenge-refused": 99}


def test_what_waits_to_be_sent_to_strangers_is_bounded() -> None:
    mesh = linked()
    node, hop = mesh.node("A"), mesh.hop("A", "B")
    for _ in range(MOST_WAITING + 1):
        node.peers.migration.on_challenge(hop, PathChallenge(bytes(8)), MOVED, mesh.now)
    assert sent_to(mesh, MOVED) == MOST_WAITING


def test_few_sessions_are_tried_on_a_datagram_from_a_stranger() -> None:
    mesh = Mesh(" ".join(f"A-B{index}" for index in range(12))).linked()
    hops = mesh.node("A").peers.hops
    byte = hops["B0"].session.local[0]
    migration = mesh.node("A").peers.migration
    migration._by_session_byte = {byte: dict(hops)}
    assert len(hops) > MOST_TRIED
    strange = forged(mesh.sealed("B0", "A", encode_frame(PROBE)))
    assert migration.open_strange(strange, MOVED, mesh.now) is None


def test_a_nearer_candidate_takes_over() -> None:
    mesh = linked()
    entries = tuple(
        entry if entry.device == "A" else entry.model_copy(update={"candidates": ("10.0.0.2:4000", "10.1.0.2:4000")})
        for entry in mesh.roster.devices
    )
    mesh.control("A", Roster(version=2, devices=entries, key_epoch=1, group_keys=mesh.roster.group_keys))
    hop = mesh.hop("A", "B")
    moves = []
    for _ in range(80):
        hop.qos.rtt_s = hop.recovery.rtt.minimum = 10.0
        mesh.run(0.1)
        moves.append(mesh.node("A").peers.migration.moves)
    assert 0 in moves
    assert moves[-1] >= 1


def test_a_suspect_link_is_not_asked_about_candidates() -> None:
    mesh = linked()
    mesh.cut.add(("A", "B"))
    mesh.run(8.0)
    assert mesh.node("A").peers.links["B"].session is None
    assert mesh.node("A").peers.migration.poll_timeout() is None


def test_a_suspect_link_asks_nothing_before_it_closes() -> None:
    mesh = linked()
    mesh.cut.add(("A", "B"))
    mesh.until(lambda: not mesh.node("A").peers.usable())
    migration = mesh.node("A").peers.migration
    migration.handle_timeout(mesh.now + 1_000.0)
    assert migration.poll() is None


def test_an_address_that_a_nat_gave_to_another_peer_is_that_peers() -> None:
    mesh = Mesh("A-B A-C").linked()
    datagram = mesh.sealed("C", "A", encode_frame(PROBE))
    before = mesh.hop("A", "C").qos.probes_heard
    mesh.inject("A", datagram, source=mesh.address("B"))
    assert mesh.hop("A", "C").qos.probes_heard == before + 1
    assert mesh.drops("A") == {}


def test_a_session_does_not_follow_its_peer_into_a_network_that_is_denied() -> None:
    mesh = linked()
    node = mesh.node("A")
    node.peers.migration._usable = lambda address: address != MOVED
    speak_from(mesh, PROBE)
    assert mesh.drops("A") == {"control-from-stranger": 1}
    assert sent_to(mesh, MOVED) == 0
