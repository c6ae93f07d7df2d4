"""Every error that arborcast raises.

::

    ArborcastError
    ├── ProtocolError
    │   ├── LocalProtocolError      our side misused the protocol: a bug here
    │   └── RemoteProtocolError     the other side did
    │       └── DecodeError         its bytes do not parse or break a limit
    ├── TransportError
    │   ├── ConnectError            nobody answered where we connected to
    │   └── LinkTimeout             it was there and fell silent
    ├── TopologyError
    │   ├── NoRoute                 the graph has no such device or tree
    │   └── StaleEpoch              the epoch asked for is no longer kept, or not yet known
    ├── RefusedError                understood and declined; the reason is for the user
    └── ConfigError                 a flag, a file or a name that cannot be used
"""


class ArborcastError(Exception):
    """The root: everything that arborcast raises on purpose."""


class ProtocolError(ArborcastError):
    """The protocol was broken, by either side."""


class LocalProtocolError(ProtocolError):
    """Our own side asked for something that the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol; nothing of ours changed."""


class DecodeError(RemoteProtocolError):
    """Bytes from outside do not parse, or break a limit of `common.limits`."""


class TransportError(ArborcastError):
    """The network or the disk failed below us."""


class ConnectError(TransportError):
    """A connection could not be made."""


class LinkTimeout(TransportError):
    """A connection or a link fell silent for longer than its time."""


class TopologyError(ArborcastError):
    """A graph does not hold together, or does not hold what was asked for."""


class NoRoute(TopologyError):
    """The graph has no such device or no such tree."""


class StaleEpoch(TopologyError):
    """The epoch asked for is not among those kept."""


class RefusedError(ArborcastError):
    """A request was understood and declined.

    Attributes:
        reason: a short slug that programs compare, such as "device-exists".
        detail: a sentence for the user, with the limit in it where there is one.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the slug and the sentence."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigError(ArborcastError):
    """A flag, a file or a name that cannot be used as it stands."""
