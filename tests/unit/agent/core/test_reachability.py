"""Every reason for which there is no link, and that the first one that holds is told."""

from dataclasses import replace
from typing import Any

import pytest

from agent.core.link import LinkState
from agent.core.reachability import Attempt, why_no_link

SILENT = Attempt(
    allowed=True,
    told=3,
    denied=0,
    tried=3,
    families=True,
    state=LinkState.PROBING,
    session=False,
    seconds=41.4,
    own="unknown",
    its="unknown",
)
BOTH = "both are behind NATs whose mapping varies by destination (symmetric)"
OWN = (
    "this device is behind a NAT whose mapping varies by destination (symmetric),"
    " and the peer's NAT lets only known ports in (likely)"
)
ITS = (
    "it is behind a NAT whose mapping varies by destination (symmetric),"
    " and this device's NAT lets only known ports in (likely)"
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "no answer from 3 addresses for 41 s"),
        ({"tried": 1}, "no answer from 1 address for 41 s"),
        ({"allowed": False, "state": None, "tried": 0}, "not in --only-peer"),
        ({"state": None}, "its public key cannot be used, or there are more peers than one device may have"),
        ({"session": True, "state": LinkState.SUSPECT}, "it fell silent"),
        ({"session": True, "state": LinkState.OPEN}, "it answers; what the path takes is being measured"),
        ({"wire": 2}, "it speaks wire version 2, and this device 1: update this device"),
        ({"wire": 0, "told": 0}, "it speaks wire version 0, and this device 1: update it"),
        ({"told": 0, "tried": 0}, "it told no address"),
        ({"denied": 3, "tried": 0}, "its addresses are all denied"),
        ({"denied": 0, "tried": 0}, "none of its addresses can be anybody's"),
        ({"families": False}, "it has addresses of another IP version than this device"),
        ({"own": "varies", "its": "varies"}, f"no answer from 3 addresses for 41 s: {BOTH}"),
        ({"own": "varies", "its": "stable"}, f"no answer from 3 addresses for 41 s: {OWN}"),
        ({"own": "stable", "its": "varies"}, f"no answer from 3 addresses for 41 s: {ITS}"),
        ({"own": "varies", "its": "varies", "seconds": 9.9}, "no answer from 3 addresses for 10 s"),
        ({"own": "none", "its": "varies"}, "no answer from 3 addresses for 41 s"),
        ({"own": "stable", "its": "stable"}, "no answer from 3 addresses for 41 s"),
    ],
)
def test_there_is_one_reason_for_every_missing_link(changes: dict[str, Any], reason: str) -> None:
    assert why_no_link(replace(SILENT, **changes)) == reason
