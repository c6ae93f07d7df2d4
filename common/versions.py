"""The version of what devices and the server say to each other over HTTP, and what happens where it differs.

A device names its version in a header of each request. The server serves the versions from the oldest that it still
speaks to its own, and refuses others in a sentence; who names none is no device and asks at its own risk. Anything
that an older device could not read (a new field of a message to it, for they refuse what they do not know) is a new
version. What agents say to each other has a version of its own, `common.datagrams.WIRE_VERSION`.
"""

from typing import Final

from pydantic import Field

from common.errors import RefusedError
from common.messages import Message

API_VERSION: Final = 1
"""What this release speaks."""
OLDEST_API_VERSION: Final = 1
"""The oldest that its server still serves."""
VERSION_HEADER: Final = "Arborcast-Version"
_MAX_DIGITS: Final = 9


class Versions(Message):
    """What a server speaks."""

    api: int = Field(description="the version of this interface, as in the header Arborcast-Version")
    oldest_api: int = Field(description="the oldest version that is served")
    release: str = Field(description="the release of arborcast that the server runs")


def check_api_version(text: str, release: str, *, oldest: int = OLDEST_API_VERSION, newest: int = API_VERSION) -> None:
    """Refuse a device of another version.

    Args:
        text: the header's value.
        release: this server's release.
        oldest: the oldest version that is served.
        newest: this server's own version.

    Raises:
        RefusedError: other-version, or malformed.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise RefusedError("malformed", f"the header {VERSION_HEADER} has to be a number of up to {_MAX_DIGITS} digits")
    version = int(text)
    if not oldest <= version <= newest:
        which = "the server" if version > newest else "the device"
        spoken = f"{newest}" if oldest == newest else f"{oldest} to {newest}"
        raise RefusedError(
            "other-version",
            f"the device speaks version {version} of the control interface, and this server (arborcast {release})"
            f" {spoken}: update {which}",
        )
