import pytest

from common.tokens import hash_token, make_token, matches, matches_any, subject_of
from tests.unit.server.harness import entropy


def test_a_token_names_its_subject_and_matches_its_hash_only() -> None:
    token, other = make_token("edge-7.x_1", entropy(1)), make_token("edge-7.x_1", entropy(2))
    assert subject_of(token) == "edge-7.x_1"
    assert len(token.rpartition("~")[2]) == 43
    assert matches(token, hash_token(token))
    assert not matches(other, hash_token(token))
    assert token not in hash_token(token)


def test_any_of_several_kept_hashes_will_do() -> None:
    tokens = [make_token("join", entropy(seed)) for seed in range(3)]
    kept = [hash_token(token) for token in tokens[:2]]
    assert [matches_any(token, kept) for token in tokens] == [True, True, False]
    assert not matches_any(tokens[0], ())


@pytest.mark.parametrize("token", ["", "~", "A", "A~", "x" * 10_000, "ä~ö", "\udcff"])
def test_garbage_proves_nothing(token: str) -> None:
    assert not matches(token, hash_token(make_token("A", entropy())))
    assert subject_of("no tilde") == ""
