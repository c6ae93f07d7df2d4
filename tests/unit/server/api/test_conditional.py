import pytest

from server.api.conditional import answer


@pytest.mark.parametrize("header", ['"7"', 'W/"7"', '"1", "7"', "*"])
def test_a_client_that_has_it_gets_304_and_no_body_is_made(header: str) -> None:
    def body() -> str:
        raise AssertionError

    found = answer('"7"', header, body)
    assert (found.status_code, found.headers["etag"]) == (304, '"7"')


@pytest.mark.parametrize("header", [None, "", '"8"', "7"])
def test_a_client_that_has_it_not_gets_the_body(header: str | None) -> None:
    found = answer('"7"', header, lambda: "text", "text/plain")
    assert (found.status_code, found.body, found.headers["etag"]) == (200, b"text", '"7"')
    assert found.headers["cache-control"] == "no-cache"
