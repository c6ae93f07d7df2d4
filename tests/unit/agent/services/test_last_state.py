import stat
from pathlib import Path

import pytest

from agent.services.last_state import LastState
from common.fields import encode_key
from common.messages import (
    Accepted,
    Channels,
    ChannelSpec,
    EpochUpdate,
    GraphBody,
    GraphUpdate,
    MtuUpdate,
    NeighboursBody,
    NeighboursUpdate,
    Roster,
    RosterEntry,
    TreeBody,
    TreeNeighbours,
)

KEY = encode_key(bytes(32))
ROSTER = Roster(
    version=1,
    devices=(
        RosterEntry(device="B", public_key=KEY, signing_key=KEY),
        RosterEntry(device="A", public_key=KEY, signing_key=KEY),
    ),
    key_epoch=0,
    group_keys={0: KEY},
)
CHANNELS = Channels(version=1, channels=(ChannelSpec(name="files", kind="file"),))
MTU = MtuUpdate(mtu_bytes=1_472)
TREE = TreeNeighbours(objective="throughput", neighbours=("B",))


def graph(epoch: int) -> GraphBody:
    return GraphBody(
        epoch=epoch,
        devices=("A", "B"),
        trees=(TreeBody(objective="throughput", edges=(("A", "B"),)),),
    )


def test_what_the_server_said_outlives_the_agent(tmp_path: Path) -> None:
    last = LastState(tmp_path)
    for message in (GraphUpdate(graph=graph(5), passed=(graph(4),)), MTU, CHANNELS, ROSTER):
        last.note(message)
    last.save()
    again = LastState(tmp_path)
    again.load()
    assert again.messages() == (ROSTER, CHANNELS, MTU, GraphUpdate(graph=graph(5)))
    assert again.members() == ("A", "B")
    assert again.channel("files") == CHANNELS.channels[0]
    assert again.channel("none") is None
    assert again.epoch == 5


def test_only_the_owner_can_read_the_group_keys(tmp_path: Path) -> None:
    last = LastState(tmp_path)
    last.note(ROSTER)
    last.save()
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600]


def test_a_new_agent_knows_nothing(tmp_path: Path) -> None:
    last = LastState(tmp_path)
    last.load()
    assert last.messages() == ()
    assert last.members() == ()
    assert last.channel("files") is None
    assert last.epoch == 0
    last.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "5", "[5]", '["{}"]', '{"a": 1}'])
def test_a_spoilt_record_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    last = LastState(tmp_path)
    last.load()
    assert last.messages() == ()


def test_an_epoch_alone_moves_the_neighbours_on(tmp_path: Path) -> None:
    last = LastState(tmp_path)
    last.note(EpochUpdate(epoch=3))
    assert last.graph is None
    last.note(NeighboursUpdate(epoch=4, trees=(TREE,)))
    last.note(EpochUpdate(epoch=5))
    assert last.graph == NeighboursUpdate(epoch=5, trees=(TREE,))


def test_what_does_not_stand_is_not_kept(tmp_path: Path) -> None:
    last = LastState(tmp_path)
    last.note(Accepted(of="qos"))
    last.save()
    assert list(tmp_path.iterdir()) == []


def test_an_answer_to_a_query_counts_if_it_is_newer_and_of_the_same_kind(tmp_path: Path) -> None:
    last = LastState(tmp_path)
    last.note_answer(graph(5))
    assert last.epoch == 5
    last.note_answer(graph(4))
    last.note_answer(NeighboursBody(epoch=9, trees=(TREE,)))
    assert last.epoch == 5
    other = LastState(tmp_path)
    other.note_answer(NeighboursBody(epoch=9, trees=(TREE,)))
    assert other.graph == NeighboursUpdate(epoch=9, trees=(TREE,))


def test_a_record_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    last = LastState(tmp_path / "none")
    last.note(ROSTER)
    last.save()
    assert last.members() == ("A", "B")
