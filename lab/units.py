"""Figures as people write them: ``100M``, ``1ms``, ``0.5%``, ``64M``.

Every parser raises ``ValueError`` whose text completes the sentence "expected ...".
"""

from __future__ import annotations

import math
import re
from typing import Final

_FIGURE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ%/]*)\s*")

_RATE_UNITS: Final = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_RATE_ENDINGS: Final = ("bit/s", "bits/s", "bps", "bit", "b/s")
_SECONDS_UNITS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}

LEAST_MTU_BYTES: Final = 1280
"""What IPv6 asks of every link (RFC 8200 section 5)."""
MOST_MTU_BYTES: Final = 65_535


def parse_rate(text: str) -> float:
    """Read a rate.

    Args:
        text: For example ``100M``, ``1.5Gbit/s`` or ``9600``; decimal multiples, at least 1 bit/s.

    Returns:
        The rate in bits per second.

    Raises:
        ValueError: The text is no rate.
    """
    expected = f'a rate such as "100M" or "1.5Gbit/s", found "{text}"'
    number, unit = _split(text, expected)
    for ending in _RATE_ENDINGS:
        if unit.endswith(ending):
            unit = unit.removesuffix(ending)
            break
    if unit not in _RATE_UNITS or number * _RATE_UNITS[unit] < 1.0:
        raise ValueError(expected)
    return number * _RATE_UNITS[unit]


def parse_seconds(text: str) -> float:
    """Read a span of time.

    Args:
        text: For example ``1ms``, ``250us``, ``5s`` or ``2min``.

    Returns:
        Seconds.

    Raises:
        ValueError: The text is no span of time.
    """
    expected = f'a time with its unit such as "1ms" or "5s", found "{text}"'
    number, unit = _split(text, expected)
    if unit not in _SECONDS_UNITS and number != 0.0:
        raise ValueError(expected)
    return number * _SECONDS_UNITS.get(unit, 0.0)


def parse_share(text: str) -> float:
    """Read a share in percent.

    Args:
        text: For example ``0.5%``; 0 % to 100 %.

    Returns:
        The share as a number from 0 to 1.

    Raises:
        ValueError: The text is no share.
    """
    expected = f'a share such as "0.5%" (0% to 100%), found "{text}"'
    number, unit = _split(text, expected)
    if unit != "%" or number > 100.0:
        raise ValueError(expected)
    return number / 100.0


def parse_size(text: str) -> int:
    """Read a number of bytes.

    Args:
        text: For example ``64M`` or ``64MiB`` (both 64 * 2**20), ``64MB`` (64 * 10**6) or ``1200``.

    Returns:
        Bytes.

    Raises:
        ValueError: The text is no size.
    """
    expected = f'a size such as "64M" or "1200", found "{text}"'
    number, unit = _split(text, expected)
    if unit not in _SIZE_UNITS:
        raise ValueError(expected)
    return int(number * _SIZE_UNITS[unit])


def parse_mtu(text: str) -> int:
    """Read the size of the largest IP packet of a link.

    Args:
        text: For example ``1500``.

    Returns:
        Bytes.

    Raises:
        ValueError: The text is no such size.
    """
    if not (text.isascii() and text.isdigit() and LEAST_MTU_BYTES <= int(text) <= MOST_MTU_BYTES):
        raise ValueError(f'an MTU of {LEAST_MTU_BYTES} to {MOST_MTU_BYTES} bytes such as "1500", found "{text}"')
    return int(text)


def show_size(size_bytes: float) -> str:
    """Write a number of bytes with three figures: ``67.1 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def show_rate(rate_bps: float) -> str:
    """Write a rate so that `parse_rate` reads it back: ``100M``."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate_bps >= factor:
            return f"{rate_bps / factor:.12g}{unit}"
    return f"{rate_bps:.12g}"


def show_seconds(seconds: float) -> str:
    """Write a span of time so that `parse_seconds` reads it back: ``5ms``."""
    if seconds >= 1.0:
        return f"{seconds:.12g}s"
    return f"{seconds * 1e3:.12g}ms"


def _split(text: str, expected: str) -> tuple[float, str]:
    match = _FIGURE.fullmatch(text)
    if match is None:
        raise ValueError(expected)
    number = float(match[1])
    if not math.isfinite(number):
        raise ValueError(expected)
    return number, match[2].lower()
