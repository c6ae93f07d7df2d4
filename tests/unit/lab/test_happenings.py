import pytest

from common.ids import link_key
from lab.happenings import Happening, Verb, parse_happening

DEVICES = ("A", "B", "web-1", "web-2")
LINKS = (link_key("A", "B"), link_key("web-1", "web-2"))


def parse(text: str) -> Happening:
    return parse_happening(5.0, text, DEVICES, LINKS)


def test_each_verb_is_read() -> None:
    assert parse("cut A-B") == Happening(5.0, Verb.CUT, link=("A", "B"))
    assert parse("restore B-A") == Happening(5.0, Verb.RESTORE, link=("A", "B"))
    assert parse("kill A") == Happening(5.0, Verb.KILL, device="A")
    assert parse("start A") == Happening(5.0, Verb.START, device="A")
    assert parse("kill server") == Happening(5.0, Verb.KILL)
    assert parse("degrade A-B mtu=1400").figures == {"mtu_bytes": 1400}
    assert parse("degrade A-B rate=10M loss=5% delay=50ms").figures == {"rate_bps": 10e6, "loss": 0.05, "delay_s": 0.05}


def test_ids_with_dashes_are_told_apart_from_the_dash_of_a_link() -> None:
    assert parse("cut web-1-web-2").link == ("web-1", "web-2")


def test_it_is_written_as_it_is_read() -> None:
    assert str(parse("cut A-B")) == "cut A-B"
    assert str(parse("start server")) == "start server"
    assert str(parse("kill web-1")) == "kill web-1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cut A-B"),
        ("explode A", "kill server"),
        ("cut", "restore A-B"),
        ("cut A-C", "a link of the scenario"),
        ("cut AB", "a link of the scenario"),
        ("cut A-B now", 'nothing after "cut A-B"'),
        ("kill Z", 'a device of the scenario or "server"'),
        ("kill A B", 'nothing after "kill A"'),
        ("degrade A-B", "what gets worse"),
        ("degrade A-B colour=red", "one of rate="),
        ("degrade A-B loss", "one of rate="),
        ("degrade A-B loss=5", "a share such as"),
        ("degrade A-B mtu=1.5k", "an MTU of 1280 to 65535 bytes"),
    ],
)
def test_what_cannot_happen_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse(text)
