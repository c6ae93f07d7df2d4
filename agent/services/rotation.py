"""A device's token is changed once a day: whoever got hold of one has it for no longer.

Theory of operation. The device makes the new token, keeps it, and sends its hash; the server takes both tokens until
the new one is first used. The device uses it once it is kept as the one that counts. So whichever answer, file or
process is lost on the way, the token that is on the disk is one that the server takes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from agent.services.control_rest import RestClient
from agent.services.identity import Identity
from common.errors import ArborcastError
from common.limits import TOKEN_ROTATION_S
from common.tokens import make_token

log = logging.getLogger(__name__)

JITTER: Final = 0.1
"""Part of the interval by which it is longer or shorter by chance: devices started together do not come together."""
RETRY_S: Final = 600.0
"""Seconds until the next try after one that failed."""


class TokenRotation:
    """Changes the token of one device.

    Args:
        rest: asks the server, and holds the identity in use.
        keep: puts an identity on the disk.
        rng: for the jitter.
        wall: gives unix seconds.
        entropy: gives that many random bytes.
        every_s: seconds between two changes.
    """

    def __init__(
        self,
        rest: RestClient,
        *,
        keep: Callable[[Identity], None],
        rng: random.Random,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
        every_s: float = TOKEN_ROTATION_S,
    ) -> None:
        self._rest = rest
        self._keep = keep
        self._rng = rng
        self._wall = wall
        self._entropy = entropy
        self._every_s = every_s

    async def run(self) -> None:
        """Change the token whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep(self.wait_s())
            try:
                await self.rotate()
                log.info("= this device has a new token")
            except ArborcastError as error:
                log.warning("= the token is not changed, next try in some %.0f s: %s", RETRY_S, error)
                await asyncio.sleep(self._jittered(RETRY_S))

    def wait_s(self) -> float:
        """Return the seconds until the token is due; a clock that was set wrong makes it no longer than an interval."""
        every = self._jittered(self._every_s)
        made = self._rest.identity.token_made
        return every if made is None else min(max(made + every - self._wall(), 0.0), every)

    async def rotate(self) -> None:
        """Change the token now.

        Raises:
            ConfigError: an identity could not be kept; the token is the one before.
            ConnectError: the server did not answer, or could not now.
            RefusedError: it declines.
        """
        rest = self._rest
        if rest.identity.next_token is None:
            prepared = rest.identity.prepared(make_token(rest.identity.device, self._entropy))
            self._keep(prepared)
            rest.identity = prepared
        await rest.rotate_token()
        changed = rest.identity.confirmed(made=self._wall())
        self._keep(changed)
        rest.identity = changed

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
