import tomllib

import pytest

from host.toml_lines import TomlLines, not_toml

TEXT = '''\
devices = [
    "A",  # one ]
    "B",
]
"quoted key" = 1

[scenario]
name = """
[not.a.table]
rate = 1
"""
seed = 3  # after a text over lines

[[links]]
between = ["A", "B"]
[links.extra]
deep.er = 1

[[links]]
rate = "5"
inline = { a = 1, b = [1, 2] }
'''


def line_of(*path: str | int) -> int:
    tomllib.loads(TEXT)
    return TomlLines(TEXT).line(path)


def test_keys_are_found_by_path() -> None:
    assert line_of("devices") == 1
    assert line_of("quoted key") == 5
    assert line_of("scenario") == 7
    assert line_of("scenario", "name") == 8
    assert line_of("scenario", "seed") == 12
    assert line_of("links", 0) == 14
    assert line_of("links", 0, "between") == 15
    assert line_of("links", 0, "extra") == 16
    assert line_of("links", 0, "extra", "deep", "er") == 17
    assert line_of("links", 1, "rate") == 20


def test_what_stands_inside_a_text_over_lines_is_no_key() -> None:
    assert line_of("not", "a", "table") == 1
    assert line_of("scenario", "rate") == 7


def test_an_unknown_path_gets_the_line_of_its_longest_known_beginning() -> None:
    assert line_of("links", 1, "between") == 19
    assert line_of("links", 1, "inline", "b", 1) == 21
    assert line_of("nothing") == 1


@pytest.mark.parametrize(("text", "line"), [("a = 1\nb = \n", 2), ("a = 1\nb = [", 2), ("=", 1), ("a = 1\na = 2\n", 2)])
def test_what_is_no_toml_is_told_with_its_line(text: str, line: int) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    found, what = not_toml(text, str(caught.value))
    assert found == line
    assert "(at" not in what
    assert not_toml("", "nonsense") == (1, "nonsense")
