import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.mend import behind, connected, mesh
from lab.happenings import Happening, Verb

EDGES = (("A", "B"), ("A", "C"), ("B", "D"), ("D", "E"))


@given(st.integers(0, 10_000), st.integers(4, 14), st.floats(2.0, 5.0))
def test_no_single_link_or_device_holds_a_mesh_together(seed: int, devices: int, degree: float) -> None:
    drawn = mesh(devices, degree, seed)
    links = set(drawn.links)
    assert connected(drawn.devices, links)
    assert all(connected(drawn.devices, links - {link}) for link in links)
    for device in drawn.devices:
        others = [other for other in drawn.devices if other != device]
        assert connected(others, {link for link in links if device not in link})
    assert all(20e6 <= figures.rate_bps <= 100e6 for figures in drawn.links.values())


@pytest.mark.parametrize(
    ("happening", "devices"),
    [
        (Happening(0.0, Verb.CUT, link=("A", "B")), ["B", "D", "E"]),
        (Happening(0.0, Verb.CUT, link=("D", "E")), ["E"]),
        (Happening(0.0, Verb.KILL, device="B"), ["D", "E"]),
        (Happening(0.0, Verb.KILL, device="C"), []),
    ],
)
def test_behind_a_link_or_a_relay_are_those_that_the_tree_reaches_over_it(
    happening: Happening, devices: list[str]
) -> None:
    assert behind(EDGES, "A", happening) == devices
