import pytest

from common.errors import RefusedError
from common.versions import API_VERSION, OLDEST_API_VERSION, check_api_version


def test_this_release_serves_itself() -> None:
    assert 1 <= OLDEST_API_VERSION <= API_VERSION
    check_api_version(str(API_VERSION), "0.1.0")


@pytest.mark.parametrize("version", ["2", "3", "4", "0003"])
def test_what_lies_between_is_served(version: str) -> None:
    check_api_version(version, "0.1.0", oldest=2, newest=4)


@pytest.mark.parametrize(
    ("version", "oldest", "sentence"),
    [
        ("1", 2, "version 1 of the control interface, and this server (arborcast 0.1.0) 2 to 4: update the device"),
        ("5", 2, "version 5 of the control interface, and this server (arborcast 0.1.0) 2 to 4: update the server"),
        ("999999999", 4, "and this server (arborcast 0.1.0) 4: update the server"),
    ],
)
def test_another_version_is_refused_and_who_has_to_change_is_named(version: str, oldest: int, sentence: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_api_version(version, "0.1.0", oldest=oldest, newest=4)
    assert caught.value.reason == "other-version"
    assert caught.value.detail.endswith(sentence)


@pytest.mark.parametrize("text", ["", "one", "-1", "1.0", "1" * 10, "¹", " 1"])
def test_what_is_no_version_is_malformed(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_api_version(text, "0.1.0")
    assert caught.value.reason == "malformed"
