"""The four manners in which a channel learns its next hops (M9 to M12).

Every chunk to be distributed is put before its channel's manner. The manner answers with the epoch to distribute it
by, or keeps it until it knows. What an agent asks of the server follows from the manner alone:

==========  ======================================================  ===============================================
manner      asks the server                                         distributes by
==========  ======================================================  ===============================================
query       periodically, more often while the graph changes (M9)   the epoch the chunk names
overflow    when its buffer is full, on a timer, at stream end (M10)  the answer
subscribe   once; then the pushes keep the local copy fresh (M11)   the epoch the chunk names
embedded    only at the source                                      the graph that travels with the stream (M12)
==========  ======================================================  ===============================================

How a chunk waits that names an epoch unknown here is the same for all: ``manner``.
"""

from __future__ import annotations

import random

from agent.core.embedded_manner import EmbeddedManner
from agent.core.manner import Manner
from agent.core.overflow_manner import OverflowManner
from agent.core.query_manner import QueryManner
from agent.core.routing import GraphTable
from common.messages import ChannelSpec


class SubscribeManner(Manner):
    """M11: without a graph, subscribe; from then on the local copy serves."""

    subscribes = True


def manner_of(spec: ChannelSpec, table: GraphTable, rng: random.Random, now: float) -> Manner:
    """Make the manner that a channel's rules name."""
    if spec.routing == "query":
        return QueryManner(spec, table, rng, now)
    if spec.routing == "overflow":
        return OverflowManner(spec, table, rng)
    if spec.routing == "embedded":
        return EmbeddedManner(spec, table, rng)
    return SubscribeManner(spec, table, rng)
