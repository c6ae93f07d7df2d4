import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.units import parse_mtu, parse_rate, parse_seconds, parse_share, parse_size, show_rate, show_seconds, show_size


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [("100M", 100e6), ("1.5Gbit/s", 1.5e9), ("9600", 9600.0), ("10 Mbps", 10e6), ("250kbit", 250e3)],
)
def test_a_rate_is_read_in_bits_per_second(text: str, rate_bps: float) -> None:
    assert parse_rate(text) == rate_bps


@pytest.mark.parametrize(
    ("text", "seconds"), [("1ms", 0.001), ("250us", 0.00025), ("5s", 5.0), ("2min", 120.0), ("0", 0.0)]
)
def test_a_span_of_time_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


def test_a_share_is_read_as_a_number_from_0_to_1() -> None:
    assert parse_share("0.5%") == 0.005
    assert parse_share("100%") == 1.0


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("64MiB", 64 << 20), ("64MB", 64_000_000), ("1200", 1200)]
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "fast", "0", "100X", "-5M", "1e5", "9" * 400])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a rate such as"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["", "5", "soon", "5 years"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time with its unit"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["5", "101%", "-1%", "x%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a share such as"):
        parse_share(text)


@pytest.mark.parametrize("text", ["", "64X", "a lot"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=10**11))
def test_a_shown_rate_reads_back(rate_bps: int) -> None:
    assert parse_rate(show_rate(rate_bps)) == pytest.approx(rate_bps)


@given(st.floats(min_value=1e-5, max_value=1e4))
def test_a_shown_time_reads_back(seconds: float) -> None:
    assert parse_seconds(show_seconds(seconds)) == pytest.approx(seconds)


def test_sizes_are_shown_with_their_unit() -> None:
    assert [show_size(size) for size in (5, 1200, 67108864, 3e9)] == ["5 B", "1.2 kB", "67.1 MB", "3.0 GB"]


def test_an_mtu_is_a_number_of_bytes() -> None:
    assert parse_mtu("1500") == 1500


@pytest.mark.parametrize("text", ["1279", "65536", "", "1.5k", "-1500", "²"])
def test_what_is_no_mtu_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an MTU of 1280 to 65535 bytes"):
        parse_mtu(text)
