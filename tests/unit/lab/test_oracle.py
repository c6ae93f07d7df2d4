import pytest

from agent.core.fragments import split
from common.datagrams import BOTH_HEADERS, CHUNK_HEADER, HOP_HEADER, PacketType
from lab.oracle import Oracle

AB = ("A", "B")
STREAM = 0x01020304


def chunk(kind: PacketType, number: int, *, stream: int = STREAM, epoch: int = 7, size: int = 100) -> bytes:
    return BOTH_HEADERS.pack(kind << 4, 1, 1, epoch, 0, stream, number).ljust(size, b"x")


def test_first_crossings_repeats_and_pulled_chunks_are_told_apart() -> None:
    oracle = Oracle()
    for datagram in (
        chunk(PacketType.DATA, 1),
        chunk(PacketType.DATA, 2, epoch=8),
        chunk(PacketType.DATA, 1, epoch=9),
        chunk(PacketType.REPEAT, 1),
        chunk(PacketType.PULLED, 3),
    ):
        oracle.note(AB, datagram)
    seen = oracle.crossings(AB, STREAM)
    assert (seen.chunks, seen.duplicates, seen.repeats, seen.pulled, seen.repairs) == (2, 1, 1, 1, 2)
    assert (seen.data_bytes, seen.repair_bytes) == (300, 200)
    assert seen.numbers() == [1, 2]
    assert [seen.times(number) for number in (0, 1, 2, 3, 10**9)] == [0, 2, 1, 0, 0]
    assert (seen.epochs[1], seen.epochs[2]) == (7, 8)


def test_links_and_streams_are_kept_apart_and_can_be_added_up() -> None:
    oracle = Oracle()
    oracle.note(AB, chunk(PacketType.DATA, 1))
    oracle.note(AB, chunk(PacketType.DATA, 1, stream=5))
    oracle.note(("B", "C"), chunk(PacketType.DATA, 1))
    assert oracle.crossings(AB, STREAM).chunks == 1
    assert oracle.crossings(AB).chunks == 2
    assert oracle.crossings(AB).duplicates == 0
    assert oracle.crossings(("A", "C")).chunks == 0


@pytest.mark.parametrize(
    "datagram",
    [b"", chunk(PacketType.DATA, 1)[:39], chunk(PacketType.CONTROL, 1), chunk(PacketType.DATA, 1 << 50)],
    ids=["empty", "short", "control", "absurd number"],
)
def test_what_is_no_chunk_is_not_counted(datagram: bytes) -> None:
    oracle = Oracle()
    oracle.note(AB, datagram)
    assert oracle.crossings(AB).data_bytes == 0


def test_a_chunk_that_crosses_very_often_is_counted_every_time() -> None:
    oracle = Oracle()
    for _ in range(300):
        oracle.note(AB, chunk(PacketType.DATA, 1))
    assert oracle.crossings(AB, STREAM).duplicates == 299


@pytest.mark.parametrize("kind", [PacketType.REPEAT, PacketType.PULLED])
def test_a_repair_is_needless_if_an_earlier_copy_reaches_the_other_end(kind: PacketType) -> None:
    oracle = Oracle()
    lost, arrived = chunk(PacketType.DATA, 1), chunk(PacketType.DATA, 2)
    oracle.note(AB, lost)
    oracle.note(AB, arrived)
    oracle.arrives(AB, arrived)
    for number in (1, 2):
        oracle.note(AB, chunk(kind, number))
        oracle.arrives(AB, chunk(kind, number))
    assert oracle.crossings(AB, STREAM).needless == 1
    oracle.note(AB, chunk(kind, 1))
    assert oracle.crossings(AB).needless == 2


def test_a_repair_of_what_did_not_reach_the_other_end_after_all_is_needed() -> None:
    oracle = Oracle()
    oracle.note(AB, chunk(PacketType.DATA, 1))
    oracle.arrives(AB, chunk(PacketType.DATA, 1))
    oracle.vanishes(AB, chunk(PacketType.DATA, 1))
    oracle.note(AB, chunk(PacketType.REPEAT, 1))
    assert oracle.crossings(AB, STREAM).needless == 0


@pytest.mark.parametrize("datagram", [b"", chunk(PacketType.CONTROL, 1), chunk(PacketType.DATA, 1)])
def test_what_was_not_counted_does_not_arrive(datagram: bytes) -> None:
    oracle = Oracle()
    oracle.arrives(AB, datagram)
    oracle.vanishes(AB, datagram)
    assert oracle.crossings(AB).data_bytes == 0


def fragments(kind: PacketType, number: int, *, first: int = 50, size: int = 3_000) -> list[bytes]:
    whole = CHUNK_HEADER.pack(STREAM, number).ljust(size, b"x")
    return [
        HOP_HEADER.pack(PacketType.FRAGMENT << 4, 1, hop_number, 7, 0) + part
        for hop_number, part in enumerate(split(whole, kind, 1_200), first)
    ]


def test_a_chunk_in_fragments_counts_once_with_all_their_bytes() -> None:
    oracle = Oracle()
    data, repeat = fragments(PacketType.DATA, 4), fragments(PacketType.REPEAT, 4, first=60)
    assert len(data) == 3
    for datagram in (*data, *repeat):
        oracle.note(AB, datagram)
    seen = oracle.crossings(AB, STREAM)
    assert (seen.chunks, seen.duplicates, seen.repeats, seen.numbers()) == (1, 0, 1, [4])
    assert (seen.data_bytes, seen.repair_bytes) == (sum(map(len, data)), sum(map(len, repeat)))
    assert seen.epochs[4] == 7


def test_a_chunk_in_fragments_reaches_the_other_end_when_all_of_them_do() -> None:
    oracle = Oracle()
    sets = [fragments(PacketType.DATA, 4), fragments(PacketType.REPEAT, 4, first=60)]
    for datagram in sets[0]:
        oracle.note(AB, datagram)
    oracle.arrives(AB, sets[0][2])
    oracle.arrives(AB, sets[0][2])
    oracle.arrives(AB, sets[0][0])
    seen = oracle.crossings(AB, STREAM)
    assert not seen.arrived(4)
    for datagram in sets[1]:
        oracle.note(AB, datagram)
        oracle.arrives(AB, datagram)
    assert (seen.needless, seen.arrived(4)) == (0, True)
    oracle.vanishes(AB, sets[1][1])
    assert not seen.arrived(4)
    oracle.arrives(AB, sets[0][1])
    assert seen.arrived(4)
    oracle.note(AB, fragments(PacketType.REPEAT, 4, first=70)[0])
    assert seen.needless == 1


def test_what_is_no_fragment_is_not_counted() -> None:
    oracle = Oracle()
    good = fragments(PacketType.DATA, 4)[0]
    changes = {16: PacketType.CONTROL, 17: 0x33, 23: 0xFF}  # No chunk's type, fragment 3 of 3, an absurd number.
    bad = [good[:at] + bytes([value]) + good[at + 1 :] for at, value in changes.items()]
    for datagram in (good[:29], *bad):
        oracle.note(AB, datagram)
        oracle.arrives(AB, datagram)
    oracle.note(AB, fragments(PacketType.DATA, 4)[1])
    oracle.note(AB, fragments(PacketType.REPEAT, 4)[1])
    oracle.arrives(AB, b"")
    oracle.vanishes(AB, b"")
    assert oracle.crossings(AB).data_bytes == oracle.crossings(AB).repair_bytes == 0
