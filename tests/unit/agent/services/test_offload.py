import errno
import os
import socket
from collections.abc import Iterator

import pytest

from agent.services import offload
from agent.services.offload import MOST_SEGMENTS, Receiver, Sender, run_length


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    sockets = tuple(socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for each in sockets:
        each.setblocking(False)
        each.bind(("127.0.0.1", 0))
    yield sockets[0], sockets[1]
    for each in sockets:
        each.close()


class Kernel:
    """A socket whose segmented sends fail as they are told; it remembers what was sent.

    Args:
        error: what a segmented send is answered with; None for success.
        most: bytes of the largest datagram that its interface takes.
    """

    def __init__(self, error: int | None, most: int = 65_507) -> None:
        self.error = error
        self.most = most
        self.calls: list[int] = []

    def setsockopt(self, *_: int) -> None:
        pass

    def sendmsg(self, buffers: list[bytes], *_: object) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self.calls.append(len(buffers))

    def sendto(self, datagram: bytes, __: object) -> None:
        if len(datagram) > self.most:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self.calls.append(1)


def test_a_run_is_of_one_size_and_ends_with_a_shorter_datagram() -> None:
    assert run_length([b"ab", b"cd", b"e", b"fg"]) == 3
    assert run_length([b"ab", b"cde"]) == 1
    assert run_length([b"ab", b"", b"cd"]) == 1
    assert run_length([b"", b""]) == 1
    assert run_length([b"ab"]) == 1


def test_a_run_is_bounded_by_segments_and_by_bytes() -> None:
    assert run_length([b"x"] * 100) == MOST_SEGMENTS
    assert run_length([bytes(9_000)] * 100) == 7
    assert run_length([bytes(70_000)] * 2) == 1


def test_a_train_goes_out_in_one_call_and_comes_in_cut_as_it_was(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = Sender(pair[0]), Receiver(pair[1])
    train = [bytes([number]) * 1_200 for number in range(20)] + [b"short"]
    sent = 0
    while sent < len(train):
        sent += sender.send(train[sent:], pair[1].getsockname())
    got: list[bytes] = []
    while len(got) < len(train):
        datagrams, source = receiver.receive()
        assert source == pair[0].getsockname()
        got += datagrams
    assert got == train
    assert not sender.plain
    with pytest.raises(BlockingIOError):
        receiver.receive()


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL])
def test_a_peer_whose_path_cannot_segment_is_served_plainly_from_then_on(error: int) -> None:
    kernel = Kernel(error)
    sender = Sender(kernel)  # type: ignore[arg-type]
    assert sender.send([b"a", b"b"], ("192.0.2.1", 7)) == 1
    assert list(sender.plain) == [("192.0.2.1", 7)]
    kernel.error = None
    assert sender.send([b"a", b"b"], ("192.0.2.1", 7)) == 1
    assert sender.send([b"a", b"b"], ("192.0.2.2", 7)) == 2
    assert kernel.calls == [1, 1, 2]


def test_another_error_of_a_train_is_the_callers() -> None:
    sender = Sender(Kernel(errno.ENETUNREACH))  # type: ignore[arg-type]
    with pytest.raises(OSError, match=os.strerror(errno.ENETUNREACH)):
        sender.send([b"a", b"b"], ("192.0.2.1", 7))
    assert not sender.plain


def test_the_list_of_plain_peers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sender, "MOST_PLAIN", 2)
    sender = Sender(Kernel(errno.EIO))  # type: ignore[arg-type]
    for port in range(1, 4):
        sender.send([b"a", b"b"], ("192.0.2.1", port))
    assert list(sender.plain) == [("192.0.2.1", 3)]


def test_without_the_options_everything_goes_plainly(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "UDP_SEGMENT", 9_999)
    monkeypatch.setattr(offload, "UDP_GRO", 9_999)
    sender, receiver = Sender(pair[0]), Receiver(pair[1])
    assert (sender.segments, receiver.joins) == (False, False)
    assert sender.send([b"one", b"two"], pair[1].getsockname()) == 1
    assert receiver.receive() == ([b"one"], pair[0].getsockname())


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EMSGSIZE])
def test_a_train_too_large_for_the_interface_says_nothing_about_the_peer(error: int) -> None:
    kernel = Kernel(error, most=1_472)
    sender = Sender(kernel)  # type: ignore[arg-type]
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        sender.send([bytes(8_972)] * 3, ("192.0.2.1", 7))
    assert not sender.plain
    kernel.error = None
    assert sender.send([bytes(1_472)] * 3, ("192.0.2.1", 7)) == 3


def test_a_train_too_large_as_a_whole_goes_one_by_one_that_once() -> None:
    kernel = Kernel(errno.EMSGSIZE)
    sender = Sender(kernel)  # type: ignore[arg-type]
    assert sender.send([b"a", b"b"], ("192.0.2.1", 7)) == 1
    assert not sender.plain
