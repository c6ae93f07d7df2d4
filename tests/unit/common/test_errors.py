from common.errors import (
    ArborcastError,
    ConfigError,
    ConnectError,
    DecodeError,
    LinkTimeout,
    LocalProtocolError,
    NoRoute,
    ProtocolError,
    RefusedError,
    RemoteProtocolError,
    StaleEpoch,
    TopologyError,
    TransportError,
)


def test_the_tree_is_the_one_in_the_docstring() -> None:
    assert issubclass(DecodeError, RemoteProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(ConnectError, TransportError)
    assert issubclass(LinkTimeout, TransportError)
    assert issubclass(NoRoute, TopologyError)
    assert issubclass(StaleEpoch, TopologyError)
    for family in (ProtocolError, TransportError, TopologyError, RefusedError, ConfigError):
        assert issubclass(family, ArborcastError)


def test_a_refusal_carries_a_slug_and_a_sentence() -> None:
    error = RefusedError("group-full", "the group has 10000 devices")
    assert (error.reason, error.detail) == ("group-full", "the group has 10000 devices")
    assert str(error) == "group-full: the group has 10000 devices"
