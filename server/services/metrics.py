"""The server's counters in Prometheus' text form, without the name of any group or device."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.services.coordinator import Coordinator


class StunCounts(Protocol):
    """What the STUN responder counts."""

    @property
    def answered(self) -> int:
        """Requests answered."""
        ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """Datagrams not answered, by reason."""
        ...


class _StunCollector(Collector):
    """Reads the responder's counters when somebody scrapes."""

    def __init__(self, counts: StunCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("arborcast_stun_answers", "STUN requests answered", value=self._counts.answered)
        family = CounterMetricFamily(
            "arborcast_stun_dropped", "Datagrams to the STUN ports that were not answered", labels=["reason"]
        )
        for reason in sorted(self._counts.dropped):
            family.add_metric([reason], self._counts.dropped[reason])
        yield family


class _GroupsCollector(Collector):
    """Reads the groups' own counters when somebody scrapes."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def collect(self) -> Iterator[Metric]:
        groups = self._coordinator.groups()
        yield GaugeMetricFamily("arborcast_groups", "Groups", value=len(groups))
        yield GaugeMetricFamily(
            "arborcast_devices", "Devices of all groups", value=sum(g.device_count() for g in groups)
        )
        yield GaugeMetricFamily(
            "arborcast_links", "Links that count: both ends report them", value=sum(g.link_count() for g in groups)
        )
        yield GaugeMetricFamily(
            "arborcast_subscribers", "Open subscriptions", value=sum(g.subscriber_count() for g in groups)
        )
        yield CounterMetricFamily(
            "arborcast_store_writes", "Parts of records stored", value=self._coordinator.store_writes
        )
        yield CounterMetricFamily(
            "arborcast_store_failures", "Records that could not be stored", value=self._coordinator.store_failures
        )
        events: dict[str, int] = {}
        for group in groups:
            for event, count in group.counts.items():
                events[event] = events.get(event, 0) + count
        family = CounterMetricFamily("arborcast_events", "What happened in the groups", labels=["event"])
        for event in sorted(events):
            family.add_metric([event], events[event])
        yield family


class Metrics:
    """What `/metrics` shows."""

    def __init__(self, coordinator: Coordinator, stun: StunCounts | None = None) -> None:
        """Count for one server.

        Args:
            coordinator: whose groups.
            stun: what the STUN responder counts, if there is one.
        """
        self._registry = CollectorRegistry()
        self._registry.register(_GroupsCollector(coordinator))
        if stun is not None:
            self._registry.register(_StunCollector(stun))
        self._refusals = Counter(
            "arborcast_refusals", "Requests and messages declined", ["reason"], registry=self._registry
        )
        self._closed = Counter(
            "arborcast_subscriptions_closed", "Subscriptions that the server ended", ["reason"], registry=self._registry
        )

    def refused(self, reason: str) -> None:
        """Count a refusal; the reason is one of ours, never text from outside."""
        self._refusals.labels(reason).inc()

    def closed(self, reason: str) -> None:
        """Count a subscription that the server ended."""
        self._closed.labels(reason).inc()

    def text(self) -> bytes:
        """Give the text that scrapers read."""
        return generate_latest(self._registry)
