"""Names of devices, groups and channels, and the order in which a link names its two ends."""

import re

from common.errors import ConfigError
from common.limits import MAX_ID_CHARS

DeviceId = str
GroupId = str
ChannelId = str
LinkKey = tuple[DeviceId, DeviceId]

_NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ID_CHARS - 1}}}"
ID_PATTERN = f"^{_NAME}$"
_ID = re.compile(_NAME)


def is_id(text: str) -> bool:
    """Tell whether a text may name a device, a group or a channel.

    Args:
        text: what to look at; 1 to 64 ASCII letters, digits, dots, underscores and dashes, the first a letter or digit.
    """
    return _ID.fullmatch(text) is not None


def check_id(text: str, what: str) -> str:
    """Return a text that may name a device, a group or a channel, or refuse it.

    Args:
        text: the name that a user or a file gave.
        what: what it names, for the error: "device", "group", "channel".

    Raises:
        ConfigError: the text is not 1 to 64 letters, digits, dots, underscores and dashes.
    """
    if not is_id(text):
        raise ConfigError(
            f"{what} name {text[:80]!r} is not 1 to {MAX_ID_CHARS} letters, digits, '.', '_' or '-',"
            " the first a letter or digit"
        )
    return text


def link_key(a: DeviceId, b: DeviceId) -> LinkKey:
    """Name the link between two devices, the same from either end."""
    return (a, b) if a <= b else (b, a)
