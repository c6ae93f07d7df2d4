"""How often one client address may show a token that proves nothing: a token bucket each, in a bounded table.

Whoever shows a valid token is never asked here, so many devices behind one address do not suffer from one of them.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from common.errors import RefusedError
from common.limits import FAILURE_EVERY_S, FAILURES_AT_ONCE, MAX_FAILURE_ADDRESSES

_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that one customer usually has to itself (RFC 6177)."""
_MAX_KEY_CHARS: Final = 64


class TooManyFailures(RefusedError):
    """The client's address has shown too many tokens that prove nothing.

    Attributes:
        retry_after_s: seconds until it may show another.
    """

    def __init__(self, retry_after_s: float) -> None:
        """Say when another try will be looked at."""
        super().__init__(
            "too-many-failures", f"too many tokens from this address were not valid; try again in {retry_after_s:.0f} s"
        )
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Bucket:
    """What an address has left, at a time in monotonic seconds."""

    left: float
    at: float


class FailureLimit:
    """Who has failed how often lately."""

    def __init__(
        self,
        *,
        at_once: int = FAILURES_AT_ONCE,
        every_s: float = FAILURE_EVERY_S,
        most_addresses: int = MAX_FAILURE_ADDRESSES,
    ) -> None:
        """Start with nobody.

        Args:
            at_once: failures in a row that one address may have.
            every_s: seconds after which it may have one more.
            most_addresses: addresses that are remembered.
        """
        self._at_once = at_once
        self._every_s = every_s
        self._most_addresses = most_addresses
        # The one that failed last stands last, so the first ones are the next to be forgotten.
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Count the addresses that are remembered."""
        return len(self._buckets)

    def fail(self, host: str, *, now: float) -> float:
        """Take note of a failure.

        Args:
            host: the client's address, without a port.
            now: monotonic seconds.

        Returns:
            0 if it may be told that it failed; else the seconds for which it is put off.
        """
        self._forget(now)
        key = key_of(host)
        bucket = self._buckets.setdefault(key, _Bucket(float(self._at_once), now))
        self._buckets.move_to_end(key)
        bucket.left = self._left(bucket, now)
        bucket.at = now
        if len(self._buckets) > self._most_addresses:
            self._buckets.popitem(last=False)
        if bucket.left < 1.0:
            return (1.0 - bucket.left) * self._every_s
        bucket.left -= 1.0
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop those that have been quiet for so long that nothing is left to remember."""
        while self._buckets:
            key, bucket = next(iter(self._buckets.items()))
            if self._left(bucket, now) < self._at_once:
                return
            del self._buckets[key]

    def _left(self, bucket: _Bucket, now: float) -> float:
        return min(bucket.left + (now - bucket.at) / self._every_s, float(self._at_once))


def key_of(host: str) -> str:
    """Return what stands for all addresses that one client is likely to have.

    Args:
        host: an address; anything else stands for itself.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:_MAX_KEY_CHARS]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> (128 - _IPV6_NETWORK) << (128 - _IPV6_NETWORK)))
