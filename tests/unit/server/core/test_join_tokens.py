import pytest

from common.errors import RefusedError
from common.limits import MAX_JOIN_TOKENS
from server.core.join_tokens import PURGE_SLACK_S, JoinTerms, JoinTokens, id_of
from tests.unit.server.harness import WALL, entropy


def fresh() -> JoinTokens:
    return JoinTokens(entropy())


def add(tokens: JoinTokens, terms: JoinTerms | None = None, *, at: float = 0.0) -> str:
    return tokens.add(terms or JoinTerms(), now=at, wall=WALL + at)


def test_a_token_without_terms_admits_for_ever_until_it_is_void() -> None:
    tokens = fresh()
    first, second = add(tokens), add(tokens)
    assert tokens.due_at is None
    assert tokens.admits(first, wall=WALL + 1e9)
    for _ in range(3):
        tokens.spend(first, now=0.0, wall=WALL)
    assert not tokens.admits("join~x", wall=WALL)
    tokens.void(id_of(first), now=0.0, wall=WALL)
    assert [tokens.admits(token, wall=WALL) for token in (first, second)] == [False, True]
    with pytest.raises(RefusedError, match="unknown-join-token"):
        tokens.void(id_of(first), now=0.0, wall=WALL)
    tokens.void_all()
    assert not tokens.admits(second, wall=WALL)


def test_a_token_that_expires_admits_until_its_second_and_is_dropped_after_it() -> None:
    tokens = fresh()
    token = add(tokens, JoinTerms(expires_s=60.0))
    add(tokens, JoinTerms(expires_s=90.0))
    assert tokens.due_at == 60.0 + PURGE_SLACK_S
    assert tokens.admits(token, wall=WALL + 59.0)
    assert not tokens.admits(token, wall=WALL + 60.0)
    with pytest.raises(RefusedError, match="bad-token"):
        tokens.spend(token, now=60.0, wall=WALL + 60.0)
    assert not tokens.purge(now=59.0, wall=WALL + 59.0)
    assert len(tokens.valid(wall=WALL + 60.0)) == 1
    assert len(tokens.records) == 2
    assert tokens.purge(now=61.0, wall=WALL + 61.0)
    assert [found.expires for found in tokens.records] == [WALL + 90.0]
    assert tokens.due_at == pytest.approx(90.0 + PURGE_SLACK_S)


def test_a_clock_that_was_set_forward_does_not_make_the_purge_hurry() -> None:
    tokens = fresh()
    add(tokens, JoinTerms(expires_s=60.0))
    add(tokens, JoinTerms(expires_s=10.0))
    assert tokens.purge(now=5.0, wall=WALL + 1_000.0)
    assert len(tokens.records) == 0
    assert tokens.due_at is None
    late = add(tokens, JoinTerms(expires_s=10.0), at=6.0)
    tokens.purge(now=7.0, wall=WALL - 1_000.0)
    assert tokens.admits(late, wall=WALL)
    assert tokens.due_at == pytest.approx(7.0 + 1_016.0 + PURGE_SLACK_S)


def test_a_token_with_a_count_admits_that_many_and_is_still_known_when_a_use_is_given_back() -> None:
    tokens = fresh()
    token, other = add(tokens, JoinTerms(uses=2, note="two hosts")), add(tokens)
    tokens.spend(token, now=0.0, wall=WALL)
    assert [(found.uses_left, found.note) for found in tokens.valid(wall=WALL)] == [(1, "two hosts"), (None, "")]
    tokens.spend(token, now=0.0, wall=WALL)
    assert not tokens.admits(token, wall=WALL)
    assert [found.id for found in tokens.valid(wall=WALL)] == [id_of(other)]
    with pytest.raises(RefusedError, match="not valid any more"):
        tokens.spend(token, now=0.0, wall=WALL)
    tokens.give_back(token, now=0.0, wall=WALL)
    tokens.give_back(other, now=0.0, wall=WALL)
    assert tokens.admits(token, wall=WALL)


def test_there_is_a_limit_and_what_is_over_does_not_count() -> None:
    tokens = fresh()
    add(tokens, JoinTerms(expires_s=1.0))
    spent = add(tokens, JoinTerms(uses=1))
    for _ in range(MAX_JOIN_TOKENS - 2):
        add(tokens)
    with pytest.raises(RefusedError, match=f"{MAX_JOIN_TOKENS} join tokens"):
        add(tokens)
    add(tokens, at=2.0)
    tokens.spend(spent, now=2.0, wall=WALL + 2.0)
    with pytest.raises(RefusedError, match="too-many-join-tokens"):
        add(tokens, at=2.0)


def test_no_token_is_kept_and_all_of_it_survives() -> None:
    tokens = fresh()
    token = add(tokens, JoinTerms(60.0, 1, "note"))
    assert all(token.rpartition("~")[2] not in record.model_dump_json() for record in tokens.records)
    again = JoinTokens(entropy(1), tokens.records)
    assert again.admits(token, wall=WALL)
    again.purge(now=0.0, wall=WALL)
    assert again.due_at == 60.0 + PURGE_SLACK_S
