"""The planner: from links and their figures to the edges of a tree, or of a forest where the links do not connect.

`throughput` is the maximum spanning tree by rate (Kruskal), or rather by what a link's rate is worth (`weight`). Its
path between any two devices has the largest possible smallest rate, so it is the best single tree for every source at
once. `latency` is the tree of shortest paths by delay from the delay centre: the device whose farthest device is
nearest. A link that is held down is taken only where there is no other way.

Both are the same for the same links in any order. A plan can be biased towards the tree that stands: see `Bias`.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.graph import find_leader
from common.ids import DeviceId, LinkKey

RELATIVE_MARGIN = 0.2
"""The share by which a candidate has to beat a standing edge."""
RATE_MARGIN_BPS = 100e3
"""Bits per second by which it has to beat it as well: below that the difference is noise on any link."""
DELAY_MARGIN_S = 0.001
"""Seconds by which a path has to be shorter as well."""
HELD_DELAY_S = 1e6
"""Seconds that a link which is held down seems to take: any path without one is shorter."""
EXACT_CENTRE_DEVICES = 128
"""Devices of a component up to which the delay centre is found exactly; above, n shortest-path runs are too slow."""
_CENTRE_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class WeighedLink:
    """A link that counts, as the planner sees it.

    Attributes:
        key: its two devices, sorted.
        rate_bps: what it is worth to the throughput tree, in bits per second (`weight`).
        delay_s: one way, in seconds.
        since: when it began to count, in monotonic seconds.
        held: it is held down, because it comes and goes: to be taken only where there is no other way.
    """

    key: LinkKey
    rate_bps: float
    delay_s: float
    since: float = 0.0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Bias:
    """What a plan shall favour.

    Attributes:
        standing: edges that a candidate has to beat by the margins; empty for an unbiased plan.
        pinned: edges that stay whatever the candidates; they must hold no cycle.
        margin: the share by which a candidate has to beat a standing edge.
    """

    standing: Mapping[LinkKey, None] = field(default_factory=dict)
    pinned: Mapping[LinkKey, None] = field(default_factory=dict)
    margin: float = RELATIVE_MARGIN


NO_BIAS = Bias()


def plan(objective: str, links: Iterable[WeighedLink], bias: Bias = NO_BIAS) -> tuple[LinkKey, ...]:
    """Choose the edges of the tree that serves an objective.

    Args:
        objective: "latency" for the shortest-path tree; anything else gets the throughput tree.
        links: the links that count, in any order.
        bias: what to favour.

    Returns:
        The edges, sorted.
    """
    if objective == "latency":
        return plan_latency(links, bias)
    return plan_throughput(links, bias)


def plan_throughput(links: Iterable[WeighedLink], bias: Bias = NO_BIAS) -> tuple[LinkKey, ...]:
    """Choose the spanning tree whose smallest rate is largest between every two devices (Kruskal).

    Args:
        links: the links that count, in any order.
        bias: what to favour.

    Returns:
        The edges, sorted.

    Source: the cycle property of maximum spanning trees; M3.
    """
    order = sorted(links, key=lambda link: _throughput_order(link, bias))
    leaders: dict[DeviceId, DeviceId] = {}
    edges = []
    for link in order:
        a, b = link.key
        leader_a = find_leader(leaders, leaders.setdefault(a, a))
        leader_b = find_leader(leaders, leaders.setdefault(b, b))
        if leader_a != leader_b:
            leaders[leader_b] = leader_a
            edges.append(link.key)
    return tuple(sorted(edges))


def _throughput_order(link: WeighedLink, bias: Bias) -> tuple[bool, bool, float, bool, float, LinkKey]:
    standing = link.key in bias.standing
    rate = max(link.rate_bps * (1 + bias.margin), link.rate_bps + RATE_MARGIN_BPS) if standing else link.rate_bps
    return link.key not in bias.pinned, link.held, -rate, not standing, link.delay_s, link.key


def plan_latency(links: Iterable[WeighedLink], bias: Bias = NO_BIAS) -> tuple[LinkKey, ...]:
    """Choose, in each component, the tree of shortest paths from its delay centre.

    Args:
        links: the links that count, in any order.
        bias: what to favour; pinned edges are not looked at, a shortest-path tree stands or falls as a whole.

    Returns:
        The edges, sorted.
    """
    adjacency: dict[DeviceId, list[tuple[DeviceId, float]]] = {}
    for link in sorted(links, key=lambda link: link.key):
        a, b = link.key
        delay = link.delay_s
        if link.key in bias.standing:
            delay = max(min(delay / (1 + bias.margin), delay - DELAY_MARGIN_S), 0.0)
        if link.held:
            delay += HELD_DELAY_S
        adjacency.setdefault(a, []).append((b, delay))
        adjacency.setdefault(b, []).append((a, delay))
    edges: list[LinkKey] = []
    seen: dict[DeviceId, None] = {}
    for device in sorted(adjacency):
        if device not in seen:
            component = sorted(_shortest(adjacency, device).delays)
            seen.update(dict.fromkeys(component))
            edges.extend(_shortest(adjacency, _centre(adjacency, component)).edges)
    return tuple(sorted(edges))


@dataclass(frozen=True, slots=True)
class _Paths:
    """Shortest paths from one device: each device's delay in seconds, and the tree's edges."""

    delays: dict[DeviceId, float]
    edges: list[LinkKey]

    def farthest(self) -> DeviceId:
        return max(self.delays, key=lambda device: (self.delays[device], device))

    def radius(self) -> float:
        return max(self.delays.values())


def _shortest(adjacency: Mapping[DeviceId, Sequence[tuple[DeviceId, float]]], root: DeviceId) -> _Paths:
    """Find the shortest paths from a device (Dijkstra): by delay, then by hops, then by the previous device's id."""
    delays: dict[DeviceId, float] = {}
    edges: list[LinkKey] = []
    heap: list[tuple[float, int, DeviceId, DeviceId]] = [(0.0, 0, root, root)]
    while heap:
        delay, hops, previous, device = heapq.heappop(heap)
        if device in delays:
            continue
        delays[device] = delay
        if device != root:
            edges.append((previous, device) if previous < device else (device, previous))
        for peer, further in adjacency[device]:
            if peer not in delays:
                heapq.heappush(heap, (delay + further, hops + 1, device, peer))
    return _Paths(delays, edges)


def _centre(adjacency: Mapping[DeviceId, Sequence[tuple[DeviceId, float]]], component: Sequence[DeviceId]) -> DeviceId:
    """Find the device whose farthest device is nearest; the first by id among equals."""
    if len(component) <= EXACT_CENTRE_DEVICES:
        return min(component, key=lambda device: (_shortest(adjacency, device).radius(), device))
    # From the farthest device of the farthest device, the middle of the longest path is close to the centre.
    bounds = dict.fromkeys(component, 0.0)
    start = component[0]
    for _ in range(_CENTRE_SWEEPS):
        start = _shortest(adjacency, start).farthest()
        for device, delay in _shortest(adjacency, start).delays.items():
            bounds[device] = max(bounds[device], delay)
        start = min(component, key=lambda device: (bounds[device], device))
    return start
