"""What a device is told about itself: bounds, and what is not shown."""

import pytest

from agent.core.config import NodeConfig
from common.errors import ConfigError
from common.limits import MIN_STREAM_MEMORY_BYTES
from common.sealing import public_key_of


@pytest.mark.parametrize(
    ("settings_", "what"),
    [
        ({"device": "-A"}, "device"),
        ({"group": "no group"}, "group"),
        ({"datagram_bytes": 1_199}, "1200 to 9000"),
        ({"stream_memory_bytes": MIN_STREAM_MEMORY_BYTES - 1}, str(MIN_STREAM_MEMORY_BYTES)),
    ],
)
def test_settings_out_of_bounds_are_refused(settings_: dict[str, object], what: str) -> None:
    good: dict[str, object] = {"device": "A", "group": "lab", "private_key": bytes(32)}
    with pytest.raises(ConfigError, match=what):
        NodeConfig(**{**good, **settings_})  # type: ignore[arg-type]


def test_the_private_key_is_not_shown() -> None:
    assert "private" not in repr(NodeConfig(device="A", group="lab", private_key=bytes(32)))


def test_the_public_key_follows_from_the_private_one() -> None:
    key = bytes(range(32))
    assert NodeConfig(device="A", group="lab", private_key=key).public_key == public_key_of(key)
