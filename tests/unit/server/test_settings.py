from pathlib import Path

import pytest

from common.errors import ConfigError
from server.settings import Settings, is_loopback

STATE = Path("state")
PEM = Path("x.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_plain_http_is_for_this_machine(host: str) -> None:
    assert is_loopback(host)
    Settings(STATE, host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "edge.example"])
def test_plain_http_for_others_has_to_be_wanted(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--insecure-http"):
        Settings(STATE, host=host).check()
    Settings(STATE, host=host, insecure_http=True).check()
    Settings(STATE, host=host, tls_cert=PEM, tls_key=PEM).check()


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="go together"):
        Settings(STATE, tls_cert=PEM).check()
    with pytest.raises(ConfigError, match="go together"):
        Settings(STATE, tls_key=PEM).check()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(STATE, port=65_536),
        Settings(STATE, groups=("no spaces",)),
        Settings(STATE, stun_port=0),
        Settings(STATE, stun_port=65_536),
        Settings(STATE, stun_port=3_478, stun=False),
    ],
)
def test_a_port_or_a_group_that_cannot_be_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError):
        settings.check()
