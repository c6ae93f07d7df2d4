import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.ids import ID_PATTERN, check_id, is_id, link_key


@pytest.mark.parametrize("text", ["A", "edge-7", "0", "a.b_c-d", "x" * 64])
def test_a_usable_name_is_taken(text: str) -> None:
    assert is_id(text)
    assert check_id(text, "device") == text


@pytest.mark.parametrize("text", ["", " ", "-a", ".a", "_a", "a b", "a/b", "a~b", "ä", "a\n", "x" * 65])
def test_an_unusable_name_is_refused_by_name(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ConfigError, match="device name"):
        check_id(text, "device")


@given(st.text(max_size=70))
def test_the_published_pattern_says_the_same(text: str) -> None:
    assert is_id(text) == (re.search(ID_PATTERN.replace("$", r"\Z"), text) is not None)


@given(st.text(), st.text())
def test_a_link_has_one_name_from_either_end(a: str, b: str) -> None:
    assert link_key(a, b) == link_key(b, a) == tuple(sorted((a, b)))
