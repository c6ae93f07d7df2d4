"""What a cut, a restored or a degraded link is, in the commands of ``ip`` and ``tc``.

Theory of operation. A cut link is a black hole in both directions, and a silent one: no carrier is lost, no ICMP comes
back, and what is sent takes up the link as ever. It is made with the neighbour table alone, which every kernel has:
both ends write frames to a hardware address that nobody has, and the other end's kernel drops them as somebody else's.
What is in the queue at that moment still arrives. Rates are changed in place by ``tc qdisc change``; delay and loss by
netem or, where an emulator carries the link, by what is written to its standard input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from common.ids import LinkKey
from lab.happenings import Happening, Verb
from lab.netns_plan import Plan, emulator_settings, mtu_bytes, shape
from lab.scenario import LinkFigures

NOBODY: Final = "02:00:00:00:00:00"
"""A hardware address of the locally administered range (IEEE 802, section 8.4) that no interface of the lab has."""


@dataclass(slots=True)
class Orders:
    """What is to be done so that something happens to a link.

    Attributes:
        ip: Lines for ``ip -batch`` by namespace.
        tc: Lines for ``tc -batch`` by namespace.
        emulator: Lines for the link's emulator.
    """

    ip: dict[str, list[str]] = field(default_factory=dict)
    tc: dict[str, list[str]] = field(default_factory=dict)
    emulator: list[str] = field(default_factory=list)


class LinkChanges:
    """What the links of a plan have become, and how to make them what they are to be next.

    Attributes:
        cut: The links that carry nothing now.
    """

    def __init__(self, plan: Plan, emulated: Collection[LinkKey]) -> None:
        """Begin with the scenario's figures.

        Args:
            plan: Names, addresses and figures.
            emulated: The links that an emulator carries.
        """
        self.cut: set[LinkKey] = set()
        self._plan = plan
        self._emulated = frozenset(emulated)
        self._figures: dict[LinkKey, LinkFigures] = dict(plan.scenario.links)

    def orders(self, link: LinkKey, happening: Happening) -> Orders:
        """Return what makes something happen to a link; the figures of a degraded link stay until it is restored.

        Args:
            link: Which.
            happening: That it is cut, restored or degraded.
        """
        orders = Orders()
        if happening.verb is Verb.CUT:
            self.cut.add(link)
            self._neighbours(link, orders, f"replace {{}} lladdr {NOBODY} nud permanent dev {{}}")
        elif happening.verb is Verb.RESTORE:
            if link in self.cut:
                self.cut.remove(link)
                self._neighbours(link, orders, "del {} dev {}")
            self._become(link, self._plan.scenario.links[link], orders)
        else:
            worse: Mapping[str, Any] = happening.figures
            self._become(link, replace(self._figures[link], **worse), orders)
        return orders

    def _neighbours(self, link: LinkKey, orders: Orders, line: str) -> None:
        for device, peer in (link, link[::-1]):
            filled = line.format(self._plan.address(peer, device), self._plan.interface(link))
            orders.ip[self._plan.namespace(device)] = [f"neighbour {filled}"]

    def _become(self, link: LinkKey, figures: LinkFigures, orders: Orders) -> None:
        before, self._figures[link] = self._figures[link], figures
        if figures == before:
            return
        interface = self._plan.interface(link)
        namespaces = [self._plan.namespace(device) for device in link]
        if mtu_bytes(figures) != mtu_bytes(before):
            for namespace in namespaces:
                orders.ip.setdefault(namespace, []).append(f"link set {interface} mtu {mtu_bytes(figures)}")
        if link in self._emulated:
            settings = emulator_settings(figures, whole=True)
            orders.emulator += [f"{direction} {settings}" for direction in ("ab", "ba")]
            return
        for namespace in namespaces:
            orders.tc[namespace] = shape("change", interface, figures, weather=link in self._plan.weathered)
