from typing import ClassVar

from server.services.coordinator import Coordinator
from server.services.metrics import Metrics
from server.services.store.memory import MemoryStore
from tests.unit.server.harness import entropy


class Counts:
    answered = 7
    dropped: ClassVar[dict[str, int]] = {"oversized": 1, "malformed": 2}


async def test_what_the_stun_responder_counts_is_shown_where_there_is_one() -> None:
    coordinator = Coordinator(MemoryStore(monotonic=lambda: 0.0), entropy=entropy())
    lines = Metrics(coordinator, Counts()).text().decode().splitlines()
    assert "arborcast_stun_answers_total 7.0" in lines
    assert 'arborcast_stun_dropped_total{reason="malformed"} 2.0' in lines
    assert 'arborcast_stun_dropped_total{reason="oversized"} 1.0' in lines
    assert "stun" not in Metrics(coordinator).text().decode()


async def test_what_happens_is_counted_by_kind_and_reason_over_all_groups() -> None:
    coordinator = Coordinator(MemoryStore(monotonic=lambda: 0.0), entropy=entropy())
    metrics = Metrics(coordinator)
    for name in ("lab", "other"):
        await coordinator.create_group(name)
        coordinator.apply(
            name, lambda group, now, wall: group.put_channel(group.channels().channels[0], now=now, wall=wall)
        )
        coordinator.apply(name, lambda group, now, wall: group.delete_channel("files", now=now, wall=wall))
        await coordinator.settled(name)
    for reason in ("strangers", "strangers", "bad-token"):
        metrics.refused(reason)
    metrics.closed("slow")
    text = metrics.text().decode()
    for line in (
        "arborcast_groups 2.0",
        "arborcast_store_writes_total 8.0",
        "arborcast_store_failures_total 0.0",
        'arborcast_events_total{event="plans"} 2.0',
        'arborcast_refusals_total{reason="strangers"} 2.0',
        'arborcast_refusals_total{reason="bad-token"} 1.0',
        'arborcast_subscriptions_closed_total{reason="slow"} 1.0',
    ):
        assert line in text.splitlines()
    await coordinator.stop()
