"""A scenario file: the devices, links, channels and happenings of one lab run.

The file is TOML and read strictly: an unknown key, a wrong type or a figure without its unit is refused with the file,
the line and what was expected there. ``docs/lab.md`` describes the form; ``lab/scenarios/six.toml`` is an example.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey, is_id, link_key
from common.limits import DEFAULT_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES, MIN_DATAGRAM_BYTES
from common.messages import ChannelSpec
from host.toml_lines import KeyPath, TomlLines, not_toml
from lab.happenings import SERVER, Happening, parse_happening
from lab.nat import Kind
from lab.units import LEAST_MTU_BYTES, MOST_MTU_BYTES, parse_rate, parse_seconds, parse_share, parse_size

OBJECTIVES: Final = ("throughput", "latency")
SCOPES: Final = ("graph", "neighbours")
KINDS: Final = tuple(kind.value for kind in Kind)
ID_FORM: Final = "of 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
DEFAULT_DELAY_S: Final = 0.001
ETHERNET_MTU_BYTES: Final = 1500

MOST_BURST: Final = 1000
MOST_REORDER_BY: Final = 1000

_FIGURE_KEYS: Final = (
    "rate",
    "delay",
    "jitter",
    "loss",
    "burst",
    "duplicate",
    "reorder",
    "reorder_by",
    "queue",
    "bucket",
    "mtu",
)
_DEVICE_KEYS: Final = ("scope", "internet", "rate", "delay")
_LINK_KEYS: Final = ("between", *_FIGURE_KEYS, "back")

_T = TypeVar("_T")


class ScenarioError(ConfigError):
    """A scenario file that cannot be used; the text is ``file:line: expected ...``."""


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """What a link does to datagrams, in both directions alike if nothing else is said.

    Attributes:
        rate_bps: Bits per second, counted over whole Ethernet frames.
        delay_s: Seconds from the end of sending to arrival.
        jitter_s: Each datagram is held up to this many seconds longer (uniform); the order is kept.
        loss: Share of datagrams that vanish, 0 to 1.
        duplicate: Share of datagrams that arrive twice, 0 to 1.
        reorder: Share of datagrams that are overtaken by later ones, 0 to 1.
        queue_bytes: Drop-tail queue before the link; None means `default_queue_bytes`.
        bucket_s: Seconds of its rate that a link which was idle lets through at once, as a token bucket does.
        mtu_bytes: The largest IP packet that the link takes; larger ones vanish. None means Ethernet's, where a
            backend makes links at all.
        burst: How many full datagrams at the link's rate are lost in a row on average; 1 for each by itself.
        reorder_by: By how many full datagrams at the link's rate one is overtaken at most; 0 leaves it to the delay.
        back: What the direction from the link's second device to its first does, where it is another one.
    """

    rate_bps: float = 100e6
    delay_s: float = DEFAULT_DELAY_S
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    queue_bytes: int | None = None
    mtu_bytes: int | None = None
    burst: float = 1.0
    reorder_by: int = 0
    back: LinkFigures | None = None
    bucket_s: float = 0.0

    def towards(self, *, second: bool) -> LinkFigures:
        """Return the figures of one direction: towards the link's second device, or back."""
        return self if second or self.back is None else self.back

    @property
    def default_queue_bytes(self) -> int:
        """Bytes that queue when the scenario says nothing: 50 ms of the rate, at least 64 KiB."""
        return max(64 * 1024, int(0.05 * self.rate_bps / 8))


ACCESS_FIGURES: Final = LinkFigures(delay_s=0.0)
"""What an access link does where the scenario does not say."""


@dataclass(frozen=True, slots=True)
class Access:
    """A device's way to the internet.

    Attributes:
        kind: Of the NAT between (`lab.nat.Kind`), or ``open`` without one.
        figures: What the access link does, in both directions alike.
    """

    kind: str
    figures: LinkFigures = ACCESS_FIGURES


@dataclass(frozen=True, slots=True)
class Scenario:
    """One lab run, checked.

    Attributes:
        name: For reports.
        seed: Everything random in the simulator follows from it.
        objective: What the tree of the file channel is made for: ``throughput`` or ``latency``.
        datagram_bytes: Largest UDP payload that the agents try; what a link takes they find out.
        declared: Whether the agents are told the links' rates and delays; if not, they measure them.
        devices: Ids, sorted.
        scopes: What each device subscribes to where it is not the whole graph.
        links: Figures by link, sorted by link.
        internet: The devices that are on the internet, and how, sorted.
        channels: Channels besides the two that every group has, or in their place.
        happenings: Sorted by time.
    """

    name: str
    devices: tuple[DeviceId, ...]
    links: Mapping[LinkKey, LinkFigures]
    seed: int = 1
    objective: str = "throughput"
    datagram_bytes: int = DEFAULT_DATAGRAM_BYTES
    declared: bool = True
    scopes: Mapping[DeviceId, str] = field(default_factory=dict)
    channels: tuple[ChannelSpec, ...] = ()
    happenings: tuple[Happening, ...] = ()
    internet: Mapping[DeviceId, Access] = field(default_factory=dict)

    @property
    def pairs(self) -> tuple[LinkKey, ...]:
        """The pairs that may have a channel, sorted: those with a link, and those that are on the internet."""
        return tuple(sorted({*self.links, *itertools.combinations(self.internet, 2)}))

    def peers(self, device: DeviceId) -> tuple[DeviceId, ...]:
        """Return the devices that a device has a link to, or may reach over the internet, sorted."""
        return tuple(sorted(b if a == device else a for a, b in self.pairs if device in (a, b)))

    def figures(self, device: DeviceId, peer: DeviceId) -> LinkFigures:
        """Return the figures of the link between two devices, or of the path over both access links."""
        link = self.links.get(link_key(device, peer))
        if link is not None:
            return link
        near, far = self.internet[device].figures, self.internet[peer].figures
        return replace(near, rate_bps=min(near.rate_bps, far.rate_bps), delay_s=near.delay_s + far.delay_s)


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Args:
        path: A TOML file.

    Returns:
        The scenario.

    Raises:
        ScenarioError: The file cannot be read or says something that is no scenario.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{path}: cannot read the scenario: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"{path}: expected UTF-8 text, found a byte that is none at position {error.start}"
        ) from error
    return parse_scenario(text, str(path))


def parse_scenario(text: str, file: str) -> Scenario:
    """Read the text of a scenario.

    Args:
        text: TOML.
        file: The name to say in errors.

    Returns:
        The scenario.

    Raises:
        ScenarioError: The text is no scenario.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, what = not_toml(text, str(error))
        raise ScenarioError(f"{file}:{line}: expected valid TOML: {what}") from error
    return _Reader(document, TomlLines(text), file).read()


class _Reader:
    """Walks one parsed document, and knows the line of everything it refuses."""

    def __init__(self, document: dict[str, Any], lines: TomlLines, file: str) -> None:
        self._document = document
        self._lines = lines
        self._file = file

    def read(self) -> Scenario:
        document = self._document
        self._known_keys(document, (), ("scenario", "devices", "links", "channels", "events"))
        head = self._table(document.get("scenario", {}), ("scenario",))
        self._known_keys(head, ("scenario",), ("name", "seed", "objective", "datagram_bytes", "declared"))
        devices, scopes = self._devices()
        internet = self._internet(devices)
        links = self._links(devices)
        return Scenario(
            name=self._text(head, ("scenario", "name"), Path(self._file).stem),
            seed=self._whole(head, ("scenario", "seed"), 1, 0, 2**63 - 1),
            objective=self._choice(head, ("scenario", "objective"), OBJECTIVES, OBJECTIVES[0]),
            datagram_bytes=self._whole(
                head,
                ("scenario", "datagram_bytes"),
                DEFAULT_DATAGRAM_BYTES,
                MIN_DATAGRAM_BYTES,
                MAX_DATAGRAM_BYTES,
            ),
            declared=self._truth(head, ("scenario", "declared"), default=True),
            devices=devices,
            scopes=scopes,
            links=links,
            channels=self._channels(),
            happenings=self._happenings(devices, links),
            internet=internet,
        )

    def _devices(self) -> tuple[tuple[DeviceId, ...], dict[DeviceId, str]]:
        found = self._document.get("devices")
        scopes: dict[DeviceId, str] = {}
        if isinstance(found, dict):
            for device, settings in found.items():
                path: KeyPath = ("devices", device)
                self._known_keys(self._table(settings, path), path, _DEVICE_KEYS)
                scopes[device] = self._choice(settings, (*path, "scope"), SCOPES, SCOPES[0])
        elif not isinstance(found, list) or not all(isinstance(device, str) for device in found):
            raise self._error(("devices",), 'devices = ["A", "B", ...] or a table [devices.A] for each')
        devices = sorted(found)
        for device in devices:
            if not is_id(device):
                raise self._error(("devices", device), f"device ids {ID_FORM}, found {device[:80]!r}")
            if device == SERVER:
                raise self._error(
                    ("devices",), f'device ids other than "{SERVER}", which names the coordination server'
                )
            if devices.count(device) > 1:
                raise self._error(("devices",), f'each device once, found "{device}" twice')
        if len(devices) < 2:
            raise self._error(("devices",), f"at least two devices, found {len(devices)}")
        return tuple(devices), {device: scope for device, scope in scopes.items() if scope != SCOPES[0]}

    def _internet(self, devices: tuple[DeviceId, ...]) -> dict[DeviceId, Access]:
        """Read how devices are on the internet; only a table of its own can say it of a device."""
        found = self._document["devices"]
        accesses: dict[DeviceId, Access] = {}
        for device in devices if isinstance(found, dict) else ():
            settings, path = found[device], ("devices", device)
            if "internet" in settings:
                kind = self._choice(settings, (*path, "internet"), KINDS, "")
                rate_bps = self._figure(settings, (*path, "rate"), parse_rate, ACCESS_FIGURES.rate_bps)
                delay_s = self._figure(settings, (*path, "delay"), parse_seconds, ACCESS_FIGURES.delay_s)
                accesses[device] = Access(kind, replace(ACCESS_FIGURES, rate_bps=rate_bps, delay_s=delay_s))
            for key in ("rate", "delay"):
                if key in settings and device not in accesses:
                    raise self._error((*path, key), f'{key} beside internet = "...", whose access link it is of')
        return accesses

    def _links(self, devices: tuple[DeviceId, ...]) -> dict[LinkKey, LinkFigures]:
        links: dict[LinkKey, LinkFigures] = {}
        for position, entry in enumerate(self._tables("links")):
            path: KeyPath = ("links", position)
            self._known_keys(entry, path, _LINK_KEYS)
            link = self._between(entry, (*path, "between"), devices)
            if link in links:
                raise self._error((*path, "between"), f'each link once, found "{"-".join(link)}" again')
            links[link] = self._figures(entry, path, None)
            if "back" in entry:
                back = self._table(entry["back"], (*path, "back"))
                self._known_keys(back, (*path, "back"), _FIGURE_KEYS)
                figures = self._figures(back, (*path, "back"), links[link])
                ordered = entry["between"][0] == link[0]
                there, home = (links[link], figures) if ordered else (figures, links[link])
                links[link] = replace(there, back=home)
        return dict(sorted(links.items()))

    def _figures(self, entry: dict[str, Any], path: KeyPath, default: LinkFigures | None) -> LinkFigures:
        """Read a link's figures; without a default its rate must be there."""
        usual = default or LinkFigures()
        return LinkFigures(
            rate_bps=self._figure(entry, (*path, "rate"), parse_rate, None if default is None else default.rate_bps),
            delay_s=self._figure(entry, (*path, "delay"), parse_seconds, usual.delay_s),
            jitter_s=self._figure(entry, (*path, "jitter"), parse_seconds, usual.jitter_s),
            loss=self._figure(entry, (*path, "loss"), parse_share, usual.loss),
            duplicate=self._figure(entry, (*path, "duplicate"), parse_share, usual.duplicate),
            reorder=self._figure(entry, (*path, "reorder"), parse_share, usual.reorder),
            queue_bytes=self._figure(entry, (*path, "queue"), parse_size, usual.queue_bytes or 0) or None,
            mtu_bytes=self._whole(entry, (*path, "mtu"), usual.mtu_bytes or 0, LEAST_MTU_BYTES, MOST_MTU_BYTES) or None,
            bucket_s=self._figure(entry, (*path, "bucket"), parse_seconds, usual.bucket_s),
            burst=self._whole(entry, (*path, "burst"), int(usual.burst), 1, MOST_BURST),
            reorder_by=self._whole(entry, (*path, "reorder_by"), usual.reorder_by, 0, MOST_REORDER_BY),
        )

    def _between(self, entry: dict[str, Any], path: KeyPath, devices: tuple[DeviceId, ...]) -> LinkKey:
        ends = entry.get("between")
        if not isinstance(ends, list) or len(ends) != 2:
            raise self._error(path, 'between = ["A", "B"], the two devices of the link')
        for end in ends:
            if end not in devices:
                raise self._error(path, f'a device of the scenario, found "{end}"')
        if ends[0] == ends[1]:
            raise self._error(path, f'two different devices, found "{ends[0]}" twice')
        return link_key(ends[0], ends[1])

    def _channels(self) -> tuple[ChannelSpec, ...]:
        channels: dict[str, ChannelSpec] = {}
        for position, entry in enumerate(self._tables("channels")):
            try:
                channel = ChannelSpec.model_validate(entry)
            except ValidationError as error:
                first = error.errors()[0]
                place = tuple(part for part in first["loc"])
                what = f"{'.'.join(str(part) for part in place) or 'channel'}: {first['msg']}"
                raise self._error(("channels", position, *place), f"a channel ({what})") from error
            if channel.name in channels:
                raise self._error(("channels", position, "name"), f'each channel once, found "{channel.name}" again')
            channels[channel.name] = channel
        return tuple(channels.values())

    def _happenings(self, devices: tuple[DeviceId, ...], links: Mapping[LinkKey, LinkFigures]) -> tuple[Happening, ...]:
        happenings: list[Happening] = []
        for position, entry in enumerate(self._tables("events")):
            path: KeyPath = ("events", position)
            self._known_keys(entry, path, ("at", "do"))
            at = self._figure(entry, (*path, "at"), parse_seconds, None)
            text = self._text(entry, (*path, "do"), None)
            happenings.append(self._checked((*path, "do"), partial(parse_happening, at, text, devices, links)))
        return tuple(sorted(happenings, key=lambda happening: happening.at))

    def _tables(self, key: str) -> list[dict[str, Any]]:
        found = self._document.get(key, [])
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise self._error((key,), f"tables headed [[{key}]]")
        return found

    def _table(self, found: object, path: KeyPath) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise self._error(path, f"a table [{'.'.join(str(part) for part in path)}]")
        return found

    def _known_keys(self, table: Mapping[str, Any], path: KeyPath, known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                raise self._error((*path, key), f'one of {", ".join(known)}, found "{key}"')

    def _figure(self, table: dict[str, Any], path: KeyPath, parse: Callable[[str], _T], default: _T | None) -> _T:
        """Read a figure with its unit; numbers without one are refused, for nobody knows what they count."""
        key = str(path[-1])
        found = table.get(key)
        if found is None:
            if default is None:
                raise self._error(path, f"{key} = ... in this table, found none")
            return default
        if not isinstance(found, str):
            raise self._error(path, f"{key} as a text with its unit in quotes, found {found!r}")
        return self._checked(path, lambda: parse(found))

    def _text(self, table: dict[str, Any], path: KeyPath, default: str | None) -> str:
        found = table.get(str(path[-1]), default)
        if not isinstance(found, str):
            raise self._error(path, f"{path[-1]} as a text in quotes, found {'none' if found is None else repr(found)}")
        return found

    def _whole(self, table: dict[str, Any], path: KeyPath, default: int, least: int, most: int) -> int:
        found = table.get(str(path[-1]))
        if found is None:
            return default
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise self._error(path, f"{path[-1]} as a whole number from {least} to {most}, found {found!r}")
        return found

    def _truth(self, table: dict[str, Any], path: KeyPath, *, default: bool) -> bool:
        found = table.get(str(path[-1]), default)
        if not isinstance(found, bool):
            raise self._error(path, f"{path[-1]} as true or false, found {found!r}")
        return found

    def _choice(self, table: dict[str, Any], path: KeyPath, choices: tuple[str, ...], default: str) -> str:
        found = table.get(str(path[-1]), default)
        if found not in choices:
            raise self._error(path, f"{path[-1]} as one of {', '.join(choices)}, found {found!r}")
        return str(found)

    def _checked(self, path: KeyPath, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except ValueError as error:
            raise self._error(path, str(error)) from error

    def _error(self, path: KeyPath, expected: str) -> ScenarioError:
        return ScenarioError(f"{self._file}:{self._lines.line(path)}: expected {expected}")
