"""What a scenario lets happen at a time: a link cut, a device killed, the server gone.

Grammar of ``do``::

    cut A-B | restore A-B
    degrade A-B [rate=10M] [delay=50ms] [jitter=5ms] [loss=5%] [duplicate=1%] [reorder=1%] [mtu=1400]
    kill C  | start C     | kill server | start server

A device's id may hold ``-``, so the two ends of a link are found by trying every ``-`` until both sides are devices.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.ids import DeviceId, LinkKey, link_key
from lab.units import parse_mtu, parse_rate, parse_seconds, parse_share

SERVER: Final = "server"

_EXAMPLES: Final = (
    '"cut A-B", "restore A-B", "degrade A-B rate=10M", "kill C", "start C", "kill server" or "start server"'
)

_FIGURES: Final[Mapping[str, tuple[str, Callable[[str], float]]]] = {
    "rate": ("rate_bps", parse_rate),
    "delay": ("delay_s", parse_seconds),
    "jitter": ("jitter_s", parse_seconds),
    "loss": ("loss", parse_share),
    "duplicate": ("duplicate", parse_share),
    "reorder": ("reorder", parse_share),
    "mtu": ("mtu_bytes", parse_mtu),
}


class Verb(enum.Enum):
    """What happens."""

    CUT = "cut"
    RESTORE = "restore"
    DEGRADE = "degrade"
    KILL = "kill"
    START = "start"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happens to a link, a device or the server.

    Attributes:
        at: Seconds after the sending began.
        verb: What happens.
        link: The link it happens to; None for `Verb.KILL` and `Verb.START`.
        device: The device it happens to; None for a link and for the server.
        figures: For `Verb.DEGRADE`: the new figures by field name of `LinkFigures`.
    """

    at: float
    verb: Verb
    link: LinkKey | None = None
    device: DeviceId | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it as the scenario does, without the figures."""
        target = "-".join(self.link) if self.link is not None else (self.device or SERVER)
        return f"{self.verb.value} {target}"


def parse_happening(at: float, text: str, devices: Collection[DeviceId], links: Collection[LinkKey]) -> Happening:
    """Read the ``do`` of an event.

    Args:
        at: Seconds after the sending began.
        text: For example ``degrade A-B rate=10M loss=5%``.
        devices: The scenario's devices.
        links: The scenario's links.

    Returns:
        What happens.

    Raises:
        ValueError: The text says nothing that can happen here; the message completes "expected ...".
    """
    words = text.split()
    if len(words) < 2 or words[0] not in {verb.value for verb in Verb}:
        raise ValueError(f'{_EXAMPLES}, found "{text}"')
    verb = Verb(words[0])
    if verb in (Verb.KILL, Verb.START):
        return Happening(at, verb, device=_device(words, devices))
    link = _link(words[1], links)
    if verb is not Verb.DEGRADE:
        if len(words) > 2:
            raise ValueError(f'nothing after "{words[0]} {words[1]}", found "{words[2]}"')
        return Happening(at, verb, link=link)
    return Happening(at, verb, link=link, figures=_new_figures(words[2:]))


def _device(words: list[str], devices: Collection[DeviceId]) -> DeviceId | None:
    if len(words) > 2:
        raise ValueError(f'nothing after "{words[0]} {words[1]}", found "{words[2]}"')
    if words[1] in devices:
        return words[1]
    if words[1] == SERVER:
        return None
    raise ValueError(f'a device of the scenario or "server", found "{words[1]}"')


def _link(word: str, links: Collection[LinkKey]) -> LinkKey:
    for position, letter in enumerate(word):
        if letter == "-":
            link = link_key(word[:position], word[position + 1 :])
            if link in links:
                return link
    raise ValueError(f'a link of the scenario such as "A-B", found "{word}"')


def _new_figures(words: list[str]) -> dict[str, float]:
    if not words:
        raise ValueError('what gets worse, such as "rate=10M loss=5% delay=50ms", found nothing')
    figures: dict[str, float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _FIGURES:
            raise ValueError(f'one of {", ".join(f"{known}=..." for known in _FIGURES)}, found "{word}"')
        attribute, parse = _FIGURES[name]
        figures[attribute] = parse(value)
    return figures
