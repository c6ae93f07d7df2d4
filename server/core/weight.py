"""What a link is worth to the throughput tree: its rate, less what loss and delay make of it.

The planner looks for the largest smallest rate. By rate alone it would hardly notice a link that loses a tenth: nine
tenths still arrive. But each lost chunk comes a round trip or two late, to all devices behind that link and in order,
and is sent twice; from a few per cent on, congestion control takes such loss for a full queue, too. So a link's worth
falls with the square of its loss: 1 % costs it 4 %, 5 % half of it, and 10 % four fifths. The square, and not the root
that TCP's rate goes by (Mathis et al. 1997), because at the low end a share of loss is made of a few packets: it must
not move a tree.

Among links of about one rate the shorter delay shall win, and a link that becomes five times as long shall be left.
But delay must not outweigh rate, or the tree would be one of latency. So a link that is five times as long counts a
quarter less, which is just beyond the planner's margin, and one that is a hundred times as long half as much. Below
half a millisecond there is no difference worth having.
"""

from typing import Final

HALVING_LOSS: Final = 0.05
"""Share of datagrams lost that halves a link's worth."""
DELAY_POWER: Final = 1 / 6
"""Power of the delay by which the worth falls: five times the delay costs a quarter."""
DELAY_LEAST_S: Final = 0.0005
"""Seconds added to every delay: shorter ones are alike."""
DELAY_USUAL_S: Final = 0.001
"""Seconds of delay that cost nothing: a link in one building."""


def worth_bps(rate_bps: float, loss: float, delay_s: float | None) -> float:
    """Return what a link is worth, in bits per second.

    Args:
        rate_bps: bits per second of its lesser direction.
        loss: share of datagrams lost in its worse direction, 0 to 1.
        delay_s: seconds one way; None, if nobody knows it, costs nothing.
    """
    worth = rate_bps * (1 - loss) / (1 + (loss / HALVING_LOSS) ** 2)
    if delay_s is None:
        return worth
    length = (delay_s + DELAY_LEAST_S) / (DELAY_USUAL_S + DELAY_LEAST_S)
    return worth * float(max(length, 1.0) ** -DELAY_POWER)
