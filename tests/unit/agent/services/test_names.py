import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services.names import numbered, part_name, safe_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("model.bin", "model.bin"),
        ("../../etc/passwd", "passwd"),
        ("/etc/cron.d/x", "x"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("dir/", "dir"),
        ("..", "unnamed"),
        (".", "unnamed"),
        ("", "unnamed"),
        ("/", "unnamed"),
        (".bashrc", "bashrc"),
        (". .hidden", "hidden"),
        ("\u3000.hidden", "hidden"),
        ("\xa0 . .\u2009", "unnamed"),
        ("a\nb\x00c\x1b[31m", "abc[31m"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("  spaced name  ", "spaced name"),
        ("lone\udc80surrogate", "lonesurrogate"),
        ("grüße.txt", "grüße.txt"),
    ],
)
def test_a_name_becomes_one_plain_visible_component(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_long_name_is_cut_before_its_ending() -> None:
    cut = safe_name("ü" * 200 + ".tar")
    assert cut.endswith("ü.tar")
    assert len(cut.encode()) <= 255


def test_a_name_that_was_cut_ends_in_no_blank() -> None:
    assert safe_name("ü" * 126 + "   x" * 9) == "ü" * 126
    assert safe_name("a" * 253 + "  b" + "c" * 30) == "a" * 253


def test_the_next_file_of_a_name_is_numbered_before_its_ending() -> None:
    assert numbered("report.pdf", 1) == "report.pdf"
    assert numbered("report.pdf", 2) == "report (2).pdf"
    assert numbered("README", 3) == "README (3)"


def test_a_part_is_hidden_and_says_so() -> None:
    assert part_name("model.bin", "ab" * 16) == f".model.bin.{'ab' * 16}.part"


@given(st.text(max_size=600))
def test_no_name_leaves_its_folder_or_passes_the_limit(name: str) -> None:
    safe = safe_name(name)
    for given_name in (safe, numbered(safe, 2), numbered(safe, 9_999), part_name(safe, "00" * 16)):
        assert "/" not in given_name
        assert "\0" not in given_name
        assert given_name not in ("", ".", "..")
        assert 1 <= len(given_name.encode()) <= 255
    assert not safe.startswith(".")
    assert safe_name(safe) == safe


@given(st.text(max_size=300))
def test_copies_of_one_name_differ(name: str) -> None:
    safe = safe_name(name)
    assert len({numbered(safe, copy) for copy in range(1, 12)}) == 11
