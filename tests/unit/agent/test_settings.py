import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.policy import DeclaredQos
from agent.settings import (
    MAX_UNIX_PATH_BYTES,
    AgentSettings,
    check_server,
    default_control_socket,
    default_state,
    gather,
    is_loopback,
    parse_address,
    parse_delay,
    parse_link,
    parse_max_rates,
    parse_network,
    parse_only_peers,
    parse_peer,
    parse_rate,
    parse_size,
    parse_stun,
)
from common.addresses import write_address
from common.errors import ConfigError
from common.limits import (
    MAX_CANDIDATES,
    MAX_DATAGRAM_BYTES,
    MAX_DENIED,
    MAX_PEERS,
    MAX_RATE_BPS,
    MAX_STREAM_MEMORY_BYTES,
    MAX_STUN_SERVERS,
    MIN_CAP_BPS,
    MIN_DATAGRAM_BYTES,
    MIN_STREAM_MEMORY_BYTES,
)

SETTINGS = AgentSettings(
    server="http://127.0.0.1:8640",
    group="lab",
    device="A",
    state=Path("state"),
    receive=Path("received"),
    control_socket=Path("agent.sock"),
)


@pytest.mark.parametrize(("text", "bps"), [("100M", 100e6), ("1.5G", 1.5e9), ("9600", 9600.0), ("64k", 64e3)])
def test_a_rate_is_bits_per_second(text: str, bps: float) -> None:
    assert parse_rate(text) == bps


@pytest.mark.parametrize("text", ["", "fast", "0", "-1M", "401G", "1e9", "nan", "inf", "100 M", "5ms"])
def test_a_wrong_rate_is_named_with_the_form_expected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"such as 100M") as caught:
        parse_rate(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("5ms", 0.005), ("250us", 250e-6), ("1s", 1.0), ("0s", 0)])
def test_a_delay_is_seconds(text: str, seconds: float) -> None:
    assert parse_delay(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "61s", "-5ms", "5m", "soon"])
def test_a_wrong_delay_is_named_with_the_form_expected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"such as 5ms"):
        parse_delay(text)


@pytest.mark.parametrize(("text", "size"), [("10G", 10 * 2**30), ("1", 1), ("1.5k", 1536)])
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "big", "10GB"])
def test_a_wrong_size_is_named_with_the_form_expected(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 500M or 10G"):
        parse_size(text)


def test_a_link_declares_a_rate_and_perhaps_a_delay() -> None:
    assert parse_link("B=100M,5ms") == ("B", DeclaredQos(100e6, 0.005))
    assert parse_link("B=100M") == ("B", DeclaredQos(100e6, None))


@pytest.mark.parametrize("text", ["B", "B=", "B=100M,", "=100M", "B=fast", "B=1M,2ms,3"])
def test_a_wrong_link_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_link(text)


def test_a_cap_is_for_the_device_or_for_one_peer() -> None:
    assert parse_max_rates(["50M", "B=20M", "C=1G"]) == (50e6, {"B": 20e6, "C": 1e9})
    assert parse_max_rates([]) == (None, {})


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["fast"], "rate 'fast'"),
        (["B="], "rate ''"),
        (["=1M"], "peer"),
        (["B=C=1M"], "peer"),
        (["1M", "2M"], "a cap for the whole device is given twice"),
        (["B=1M", "B=2M"], "a cap for peer 'B' is given twice"),
        (["100"], "a cap of 100 bits per second is too low; at least 10K is needed"),
        (["B=9.9K"], "a cap of 9.9K bits per second is too low; at least 10K is needed"),
    ],
)
def test_a_wrong_cap_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_max_rates(texts)


def test_a_peer_has_a_name_and_an_address() -> None:
    assert parse_peer("B=192.0.2.7:7400") == ("B", ("192.0.2.7", 7400))
    assert parse_peer("B=[2001:db8::1]:7400") == ("B", ("2001:db8::1", 7400))


@pytest.mark.parametrize("text", ["B", "B=", "B=host", "B=host:0", "B=host:65536", "/=h:1", "B=:1", "B=::1:5"])
def test_a_wrong_peer_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_peer(text)


def test_a_free_port_can_be_asked_for_only_where_it_makes_sense() -> None:
    assert parse_address("0.0.0.0:0", any_port=True) == ("0.0.0.0", 0)
    with pytest.raises(ConfigError):
        parse_address("0.0.0.0:0")


@given(
    st.tuples(
        st.one_of(st.ip_addresses().map(str), st.just("host.example")),
        st.integers(min_value=1, max_value=65535),
    )
)
def test_a_written_address_reads_back(address: tuple[str, int]) -> None:
    assert parse_address(write_address(address)) == address


@given(st.text(max_size=40))
def test_parsers_raise_nothing_but_config_errors(text: str) -> None:
    for parse in (parse_rate, parse_delay, parse_size, parse_link, parse_peer, parse_address):
        with contextlib.suppress(ConfigError):
            parse(text)


@pytest.mark.parametrize("url", ["https://tree.example.org", "http://localhost:1", "http://[::1]:8640/"])
def test_a_server_is_reached_by_tls_or_on_this_host(url: str) -> None:
    assert check_server(url, insecure_http=False) == url


def test_plain_http_to_another_host_has_to_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="--insecure-http"):
        check_server("http://192.0.2.1:8640", insecure_http=False)
    assert check_server("http://192.0.2.1:8640", insecure_http=True)


@pytest.mark.parametrize("url", ["", "tree.example.org:8640", "ftp://h", "https://", "https://h/path", "https://[::"])
def test_a_server_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL"):
        check_server(url, insecure_http=True)


def test_a_peer_named_twice_is_refused() -> None:
    assert gather([("B", 1), ("C", 2)], "a link") == {"B": 1, "C": 2}
    with pytest.raises(ConfigError, match="a link for peer 'B' is given twice"):
        gather([("B", 1), ("B", 2)], "a link")


def test_the_peers_to_link_with_have_names() -> None:
    assert parse_only_peers(["B", "C"]) == frozenset({"B", "C"})
    with pytest.raises(ConfigError, match="peer"):
        parse_only_peers(["B", "no/name"])


def test_a_device_is_not_its_own_peer() -> None:
    with pytest.raises(ConfigError, match="its own peer"):
        replace(SETTINGS, peers={"A": ("192.0.2.1", 1)})


def test_limits_stand_in_the_errors() -> None:
    with pytest.raises(ConfigError, match="1200 to 9000"):
        replace(SETTINGS, datagram_bytes=1_000)
    with pytest.raises(ConfigError, match="at most 16"):
        replace(SETTINGS, advertise=tuple(("192.0.2.1", port) for port in range(1, 18)))
    with pytest.raises(ConfigError, match="at most 256"):
        replace(SETTINGS, only_peers=frozenset(f"d{number}" for number in range(257)))
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        replace(SETTINGS, control_socket=Path("x" * 108))


@pytest.mark.parametrize(
    "changes",
    [
        {"stun": tuple(("192.0.2.1", port) for port in range(1, MAX_STUN_SERVERS + 1))},
        {"denied": (parse_network("10.0.0.0/8"),) * MAX_DENIED},
        {"advertise": tuple(("192.0.2.1", port) for port in range(1, MAX_CANDIDATES + 1))},
        {"only_peers": frozenset(f"d{number}" for number in range(MAX_PEERS))},
        {"datagram_bytes": MIN_DATAGRAM_BYTES},
        {"datagram_bytes": MAX_DATAGRAM_BYTES},
        {"control_socket": Path("x" * MAX_UNIX_PATH_BYTES)},
    ],
)
def test_what_is_at_its_limit_is_taken(changes: dict[str, Any]) -> None:
    assert replace(SETTINGS, **changes)


def test_a_rate_a_cap_and_a_delay_reach_to_their_limits() -> None:
    assert parse_max_rates([f"{MIN_CAP_BPS}"])[0] == MIN_CAP_BPS
    with pytest.raises(ConfigError, match="at least 10K"):
        parse_max_rates([f"{MIN_CAP_BPS - 1}"])
    assert parse_max_rates([f"{MAX_RATE_BPS / 1e9:g}G"])[0] == MAX_RATE_BPS
    with pytest.raises(ConfigError, match="up to 400G"):
        parse_max_rates(["400.1G"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stun": tuple(("192.0.2.1", port) for port in range(1, 10))}, "9 STUN servers; at most 8"),
        ({"denied": (parse_network("10.0.0.0/8"),) * 65}, "65 networks to keep out of; at most 64"),
        (
            {"denied": (parse_network("10.0.0.0/8"),), "advertise": (("10.0.0.1", 1),)},
            "10.0.0.1 is in a network of --deny",
        ),
        ({"denied": (parse_network("fd00::/8"),), "peers": {"B": ("fd00::1", 1)}}, "fd00::1 is in a network of --deny"),
    ],
)
def test_limits_and_contradictions_of_discovery_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(SETTINGS, **changes)


@pytest.mark.parametrize(
    ("changes", "servers"),
    [
        ({}, (("127.0.0.1", 8640), ("127.0.0.1", 8641))),
        ({"server": "https://tree.example.org"}, (("tree.example.org", 443), ("tree.example.org", 444))),
        ({"server": "http://localhost"}, (("localhost", 80), ("localhost", 81))),
        ({"server": "http://[::1]:65535"}, (("::1", 65_535),)),
        ({"only_advertised": True}, ()),
        ({"only_advertised": True, "stun": (("192.0.2.1", 3478),)}, (("192.0.2.1", 3478),)),
        ({"stun": ()}, ()),
    ],
)
def test_the_server_is_asked_for_the_reflexive_address_unless_another_is_named(
    changes: dict[str, Any], servers: tuple[tuple[str, int], ...]
) -> None:
    assert replace(SETTINGS, **changes).stun_servers == servers


def test_stun_is_servers_or_off() -> None:
    assert parse_stun(()) is None
    assert parse_stun(("off",)) == ()
    assert parse_stun(("stun.example:3478", "[::1]:3479")) == (("stun.example", 3478), ("::1", 3479))
    with pytest.raises(ConfigError, match="contradict each other"):
        parse_stun(("off", "a:1"))
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        parse_stun(("stun.example",))


def test_a_network_is_an_address_with_a_length() -> None:
    assert str(parse_network("10.8.1.2/16")) == "10.8.0.0/16"
    assert str(parse_network("2001:db8::/32")) == "2001:db8::/32"
    assert str(parse_network("192.0.2.1")) == "192.0.2.1/32"
    for text in ("", "10.8.0.0/33", "eth0", "10.8/16"):
        with pytest.raises(ConfigError, match=r"such as 10.8.0.0/16"):
            parse_network(text)


@pytest.mark.parametrize("field", ["device", "group"])
def test_a_name_that_is_none_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(SETTINGS, **{field: "no name"})  # type: ignore[arg-type]


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(replace(SETTINGS, join_token="secret"))


def test_the_control_socket_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    monkeypatch.delenv("ARBORCAST_SOCKET", raising=False)
    assert default_state() == Path("/var/state/arborcast")
    assert default_control_socket() == Path("/var/state/arborcast/agent.sock")
    monkeypatch.setenv("ARBORCAST_SOCKET", "/run/a.sock")
    assert default_control_socket() == Path("/run/a.sock")


def test_loopback_is_this_host_alone() -> None:
    assert is_loopback("127.0.0.9")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("192.0.2.1")
    assert not is_loopback("localhost.example.org")


@pytest.mark.parametrize("size", [MIN_STREAM_MEMORY_BYTES - 1, MAX_STREAM_MEMORY_BYTES + 1])
def test_a_streams_memory_has_its_bounds(size: int) -> None:
    with pytest.raises(ConfigError, match=f"{MIN_STREAM_MEMORY_BYTES} to {MAX_STREAM_MEMORY_BYTES} are allowed"):
        replace(SETTINGS, stream_memory_bytes=size)
