from dataclasses import replace
from pathlib import Path

import pytest

import lab
from lab.scenario import LinkFigures, Scenario, ScenarioError, load_scenario, parse_scenario

SIX = Path(lab.__file__).parent / "scenarios" / "six.toml"

HEAD = 'devices = ["A", "B", "C"]\n'
LINK = '[[links]]\nbetween = ["A", "B"]\nrate = "100M"\n'


def parse(text: str) -> Scenario:
    return parse_scenario(text, "s.toml")


def refusal(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    return str(caught.value)


def test_the_worked_example_is_a_scenario() -> None:
    six = load_scenario(SIX)
    assert six.devices == ("A", "B", "C", "D", "E", "F")
    assert list(six.links) == [("A", "B"), ("A", "C"), ("B", "C"), ("B", "E"), ("C", "D"), ("D", "F")]
    assert six.peers("C") == ("A", "B", "D")
    assert six.figures("C", "B").rate_bps == min(figures.rate_bps for figures in six.links.values())


def test_every_figure_of_a_link_is_read() -> None:
    scenario = parse(
        HEAD
        + LINK
        + 'delay = "5ms"\njitter = "1ms"\nloss = "2%"\nduplicate = "1%"\nreorder = "3%"\nqueue = "64K"\n'
        + '[[links]]\nbetween = ["C", "B"]\nrate = "1G"\n'
    )
    assert scenario.links["A", "B"] == LinkFigures(100e6, 0.005, 0.001, 0.02, 0.01, 0.03, 65536)
    assert scenario.links["B", "C"] == LinkFigures(rate_bps=1e9)


@pytest.mark.parametrize(("between", "lossy"), [('["A", "B"]', "B"), ('["B", "A"]', "A")])
def test_one_direction_of_a_link_may_have_figures_of_its_own(between: str, lossy: str) -> None:
    link = (
        f'[[links]]\nbetween = {between}\nrate = "100M"\ndelay = "5ms"\nburst = 4\nreorder_by = 50\nbucket = "20ms"\n'
    )
    figures = parse(HEAD + link + 'back = { loss = "10%", burst = 8 }\n').links["A", "B"]
    plain = LinkFigures(100e6, 0.005, burst=4, reorder_by=50, bucket_s=0.02)
    worse = replace(plain, loss=0.1, burst=8)
    assert figures.back is not None
    there, back = figures.towards(second=True), figures.towards(second=False)
    assert replace(there, back=None) == (plain if lossy == "B" else worse)
    assert back == (worse if lossy == "B" else plain)


def test_a_queue_holds_50_ms_and_at_least_64_kib() -> None:
    assert LinkFigures(rate_bps=1e6).default_queue_bytes == 64 * 1024
    assert LinkFigures(rate_bps=100e6).default_queue_bytes == 625_000


def test_devices_may_be_a_table_with_their_scopes() -> None:
    scenario = parse('[devices.B]\nscope = "neighbours"\n[devices.A]\n' + LINK)
    assert scenario.devices == ("A", "B")
    assert scenario.scopes == {"B": "neighbours"}


ONLINE = (
    '[devices.A]\ninternet = "open"\n[devices.B]\ninternet = "symmetric"\nrate = "20M"\ndelay = "5ms"\n'
    '[devices.C]\ninternet = "port-restricted"\nscope = "neighbours"\n[devices.D]\n'
)


def test_devices_may_be_on_the_internet_beside_their_links() -> None:
    scenario = parse(ONLINE + '[[links]]\nbetween = ["A", "D"]\nrate = "1M"\n')
    assert {device: access.kind for device, access in scenario.internet.items()} == {
        "A": "open",
        "B": "symmetric",
        "C": "port-restricted",
    }
    assert scenario.internet["A"].figures == LinkFigures(rate_bps=100e6, delay_s=0.0)
    assert scenario.internet["B"].figures == LinkFigures(rate_bps=20e6, delay_s=0.005)
    assert scenario.pairs == (("A", "B"), ("A", "C"), ("A", "D"), ("B", "C"))
    assert scenario.peers("A") == ("B", "C", "D")
    assert scenario.peers("D") == ("A",)
    assert scenario.figures("C", "B") == LinkFigures(rate_bps=20e6, delay_s=0.005)
    assert scenario.figures("D", "A").rate_bps == 1e6


def test_channels_and_happenings_are_read() -> None:
    scenario = parse(
        HEAD
        + '[scenario]\nname = "n"\nseed = 7\nobjective = "latency"\ndatagram_bytes = 1400\ndeclared = false\n'
        + LINK
        + '[[channels]]\nname = "chat"\nkind = "message"\nrouting = "query"\n'
        + '[[events]]\nat = "9s"\ndo = "kill C"\n[[events]]\nat = "500ms"\ndo = "cut A-B"\n'
    )
    assert (scenario.name, scenario.seed, scenario.objective, scenario.datagram_bytes) == ("n", 7, "latency", 1400)
    assert not scenario.declared
    assert scenario.channels[0].routing == "query"
    assert [str(happening) for happening in scenario.happenings] == ["cut A-B", "kill C"]


def test_the_name_is_the_files_where_none_is_given() -> None:
    assert parse(HEAD).name == "s"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("devices = [", 1, "valid TOML"),
        (HEAD + LINK + 'back = { between = "A" }\n', 5, "one of rate, delay"),
        (HEAD + LINK + "back = 5\n", 5, "a table"),
        (HEAD + LINK + "burst = 0\n", 5, "a whole number from 1 to 1000"),
        (HEAD + "x = = 1\n", 2, "valid TOML"),
        ("[scenario]\n", 1, 'devices = ["A", "B", ...]'),
        ("devices = 5\n", 1, 'devices = ["A", "B", ...]'),
        ('devices = ["A"]\n', 1, "at least two devices, found 1"),
        ('devices = ["A", "A"]\n', 1, "each device once"),
        ('devices = ["A", "b c"]\n', 1, "device ids of 1 to 64 letters"),
        ('devices = ["A", "server"]\n', 1, "names the coordination server"),
        ('[devices.A]\n[devices.B]\nscope = "all"\n', 3, "scope as one of graph, neighbours, found 'all'"),
        ("[devices]\nA = 1\nB = 1\n", 2, "a table [devices.A]"),
        ('[devices.A]\n[devices.B]\ninternet = "nat"\n', 3, "internet as one of open, endpoint-independent, address-"),
        ("[devices.A]\n[devices.B]\ninternet = true\n", 3, "internet as one of open"),
        ('[devices.A]\n[devices.B]\nrate = "1M"\n', 3, 'rate beside internet = "..."'),
        ('[devices.A]\n[devices.B]\ndelay = "1ms"\n', 3, 'delay beside internet = "..."'),
        ('[devices.A]\n[devices.B]\ninternet = "open"\nrate = 5\n', 4, "rate as a text with its unit"),
        ('[devices.A]\n[devices.B]\nloss = "1%"\n', 3, 'found "loss"'),
        ("colour = 1\n" + HEAD, 1, 'one of scenario, devices, links, channels, events, found "colour"'),
        (HEAD + "scenario = 1\n", 2, "a table [scenario]"),
        (HEAD + "[scenario]\nsped = 1\n", 3, 'found "sped"'),
        (HEAD + '[scenario]\nseed = "one"\n', 3, "seed as a whole number"),
        (HEAD + "[scenario]\nname = 1\n", 3, "name as a text"),
        (HEAD + "[scenario]\ndeclared = 1\n", 3, "declared as true or false"),
        (HEAD + "[scenario]\ndatagram_bytes = 100\n", 3, "datagram_bytes as a whole number from 1200 to 9000"),
        (HEAD + "links = 1\n", 2, "tables headed [[links]]"),
        (HEAD + "\n" + LINK + "colour = 1\n", 6, 'found "colour"'),
        (HEAD + '[[links]]\nrate = "1M"\n', 2, 'between = ["A", "B"]'),
        (HEAD + '[[links]]\nbetween = ["A", "Z"]\nrate = "1M"\n', 3, 'a device of the scenario, found "Z"'),
        (HEAD + '[[links]]\nbetween = ["A", "A"]\nrate = "1M"\n', 3, "two different devices"),
        (HEAD + LINK + LINK, 6, 'each link once, found "A-B" again'),
        (HEAD + '[[links]]\nbetween = ["A", "B"]\n', 2, "rate = ... in this table"),
        (HEAD + '[[links]]\nbetween = ["A", "B"]\nrate = 100\n', 4, "rate as a text with its unit in quotes"),
        (HEAD + '[[links]]\nbetween = ["A", "B"]\nrate = "fast"\n', 4, "a rate such as"),
        (HEAD + LINK + 'loss = "5"\n', 5, "a share such as"),
        (HEAD + LINK + "mtu = 1000\n", 5, "mtu as a whole number from 1280 to 65535"),
        (HEAD + '[[channels]]\nname = "x"\nkind = "carrier pigeon"\n', 4, "a channel (kind:"),
        (HEAD + '[[channels]]\nname = "x"\nkind = "file"\nspeed = 9\n', 5, "a channel (speed:"),
        (HEAD + 2 * '[[channels]]\nname = "x"\nkind = "file"\n', 6, "each channel once"),
        (HEAD + '[[events]]\ndo = "kill A"\n', 2, "at = ... in this table"),
        (HEAD + '[[events]]\nat = "5s"\n', 2, "do as a text in quotes, found none"),
        (HEAD + '[[events]]\nat = "5s"\ndo = "kill Z"\n', 4, "a device of the scenario"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_what_was_expected(text: str, line: int, expected: str) -> None:
    message = refusal(text)
    assert message.startswith(f"s.toml:{line}: expected ")
    assert expected in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot read the scenario"):
        load_scenario(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="expected UTF-8 text"):
        load_scenario(tmp_path / "binary.toml")
