"""The rhythm of one link: when a probe goes, what it promises, and how much silence is too much.

Theory of operation. Every probe promises when the next one comes at the latest. Where chunks cross the link that is
every 50 ms, in the tree every 250 ms, elsewhere every second. Whoever hears nothing for four of the promised times, and
some time for jitter, suspects the link; where many probes are known to get lost, for some more of them. A rhythm gets
faster at once; before it gets slower, the last probes of the fast one all promise the slow one, so that a lost probe is
not taken for a dead link.

A device that was itself held up (its timer rang late) judges nobody before it has looked at what waits in its sockets.
"""

from __future__ import annotations

from math import ceil, log
from typing import Final

PROBE_FLOWING_S: Final = 0.05
"""Seconds between probes while chunks cross the link."""
PROBE_IN_TREE_S: Final = 0.25
PROBE_IDLE_S: Final = 1.0
FLOWING_FOR_S: Final = 1.0
"""Seconds after a chunk for which the link counts as one that chunks cross."""
ANNOUNCEMENTS: Final = 4
"""Probes that promise a slower rhythm before it begins: as many as may get lost without the link being suspected."""
SILENT_PROBES: Final = 4
"""Promised times of silence that make a link suspect."""
MOST_SILENT_PROBES: Final = 10
"""The same on the worst of links."""
LOSS_GAIN: Final = 1 / 32
"""Weight of one of the peer's probes in the share of them that get lost."""
FALSE_ALARMS: Final = 1e-4
"""How likely so many probes in a row may be lost by chance: at 20 probes a second once in eight minutes, at most."""
SLACK_S: Final = 0.02
"""Seconds that the last of them may come late on the quietest path."""
MOST_SPREAD_S: Final = 0.08
"""Seconds that the round trip's variation may add."""
REFUSED_S: Final = 0.1
"""Seconds in which the peer has to answer once the network has said that it cannot be reached …"""
REFUSED_RTTS: Final = 3
"""… and round trips, if they are longer."""
LATE_S: Final = 0.03
"""Seconds by which a timer has to be late for this device to count as held up."""
MOST_GRACE_S: Final = 0.25
"""Seconds that it then gives the others, at most."""
MOST_GRACES: Final = 2
"""How often it does so in one silence."""
_HALF: Final = 1 << 31


class Rhythm:
    """One link's probes, and the peer's.

    Args:
        now: monotonic seconds.

    Attributes:
        in_tree: whether the link is a tree edge.
        spread_s: how much its round trips vary, seconds.
        loss: share of the peer's probes that get lost on their way here, 0 to 1.
    """

    def __init__(self, now: float) -> None:
        self.in_tree = False
        self.spread_s = 0.0
        self.loss = 0.0
        self._next: float | None = None
        self._pause = PROBE_IDLE_S
        self._promised_last = PROBE_IDLE_S
        self._announced = 0
        self._hasty = False
        self._flowing_until = now
        self._heard_at = now
        self._promised = PROBE_IDLE_S
        self._number: int | None = None
        self._answer_by: float | None = None
        self._grace_until = now
        self._graces = 0

    def start(self, now: float) -> None:
        """Begin with a new session: a probe goes at once."""
        self.on_heard(now)
        self._promised = PROBE_IDLE_S
        self._number = None
        self._next = now

    def stop(self) -> None:
        """End with the session."""
        self._next = None

    # --- our probes -----------------------------------------------------------------------------------------------

    def on_flow(self, now: float) -> None:
        """Note that a chunk crosses the link, in either direction."""
        self._flowing_until = now + FLOWING_FOR_S
        if self._pause > PROBE_FLOWING_S:
            self._hasten(now)

    def set_in_tree(self, in_tree: bool, now: float) -> None:
        """Note whether the link is a tree edge."""
        if in_tree and not self.in_tree:
            self._hasten(now)
        self.in_tree = in_tree

    def set_hasty(self, hasty: bool, now: float) -> None:
        """Note whether the link is suspect: then an answer is wanted soon."""
        self._hasty = hasty
        self._hasten(now)

    def poll_probe(self, now: float) -> float | None:
        """Return the promise to write into the probe that is due, seconds; None if none is due."""
        if self._next is None or now < self._next:
            return None
        wanted = self._wanted(now)
        if wanted != self._promised_last:
            self._promised_last, self._announced = wanted, 0
        if wanted <= self._pause or self._announced >= ANNOUNCEMENTS:
            self._pause = wanted
        else:
            self._announced += 1
        self._next = now + self._pause
        return wanted

    # --- the peer's -----------------------------------------------------------------------------------------------

    def on_heard(self, now: float) -> None:
        """Note an authentic sign of life."""
        self._heard_at = now
        self._answer_by = None
        self._graces = 0

    def on_promise(self, seconds: float) -> None:
        """Note within which time the peer's next probe comes; it is believed within the bounds of the rhythms."""
        self._promised = min(max(seconds, PROBE_FLOWING_S), PROBE_IDLE_S)

    def on_number(self, number: int) -> None:
        """Note which of its probes the peer sent: those before it that did not come are lost.

        So many in a row that the link was suspect meanwhile are no share of anything: they are an outage.

        Args:
            number: low 32 bits of how many probes it has sent.
        """
        ahead = 1 if self._number is None else (number - self._number) & 0xFFFFFFFF
        if not ahead or ahead > _HALF:
            return  # overtaken
        self._number = number
        if ahead <= MOST_SILENT_PROBES:
            self.loss = 1 - (1 - self.loss) * (1 - LOSS_GAIN) ** (ahead - 1)
            self.loss -= self.loss * LOSS_GAIN

    def on_refused(self, rtt_s: float, now: float) -> bool:
        """Note that the network says that the peer cannot be reached; that may be a forgery, so a sign of life wins.

        Args:
            rtt_s: a round trip to the peer, seconds.
            now: monotonic seconds.

        Returns:
            Whether that is news: then the peer has to be asked for a sign of life.
        """
        if self._answer_by is not None:
            return False
        self._answer_by = now + max(REFUSED_S, REFUSED_RTTS * rtt_s)
        return True

    def silent_at(self) -> float:
        """Return when the silence has lasted too long."""
        slack = SLACK_S + min(self.spread_s, MOST_SPREAD_S)
        at = self._heard_at + _silent_probes(self.loss) * self._promised + slack
        if self._answer_by is not None:
            at = min(at, self._answer_by)
        return max(at, self._grace_until)

    def may_judge(self, now: float) -> bool:
        """Tell whether a silence that has lasted too long may be judged now: who is late looks again first."""
        late = now - self.silent_at()
        if late < LATE_S or self._graces >= MOST_GRACES:
            return True
        self._graces += 1
        self._grace_until = now + min(late, MOST_GRACE_S)
        return False

    def poll_timeout(self) -> float | None:
        """Return when a probe is due."""
        return self._next

    def _wanted(self, now: float) -> float:
        if now < self._flowing_until:
            return PROBE_FLOWING_S
        return PROBE_IN_TREE_S if self.in_tree or self._hasty else PROBE_IDLE_S

    def _hasten(self, now: float) -> None:
        if self._next is not None:
            self._next = min(self._next, now)


def _silent_probes(loss: float) -> int:
    """Return how many probes have to stay away until chance is no explanation."""
    if loss <= 0.0:
        return SILENT_PROBES
    if loss >= 1.0:
        return MOST_SILENT_PROBES
    return min(max(ceil(log(FALSE_ALARMS) / log(loss)), SILENT_PROBES), MOST_SILENT_PROBES)
