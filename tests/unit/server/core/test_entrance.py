import pytest

from common.errors import RefusedError
from common.messages import Enrolment, EnrolmentAnswer
from server.core.join_tokens import JoinTerms, id_of
from tests.unit.server.harness import WALL, Bench, key_of


def test_an_enrolment_spends_its_join_token_and_one_that_is_refused_does_not() -> None:
    bench = Bench()
    token = bench.group.entrance.add_join_token(JoinTerms(uses=1), now=0.0, wall=WALL)

    def enrol(device: str) -> EnrolmentAnswer:
        enrolment = Enrolment(device=device, public_key=key_of(device), signing_key=key_of(device))
        return bench.group.enrol(enrolment, now=bench.now, wall=bench.wall, join_token=token)

    bench.enrol("B")
    with pytest.raises(RefusedError, match="device-exists"):
        enrol("B")
    enrol("A")
    with pytest.raises(RefusedError, match="the join token is not valid any more"):
        enrol("C")
    assert bench.group.device_count() == 2
    assert bench.group.entrance.join_tokens(wall=WALL) == ()
    bench.group.entrance.give_back_join(token, now=0.0, wall=WALL)
    assert [found.uses_left for found in bench.group.entrance.join_tokens(wall=WALL)] == [1]


def test_a_join_token_that_has_expired_is_taken_out_of_the_record() -> None:
    bench = Bench()
    token = bench.group.entrance.add_join_token(JoinTerms(expires_s=60.0), now=0.0, wall=WALL)
    lasting = bench.group.entrance.add_join_token(now=0.0, wall=WALL)
    bench.group.poll_record()
    bench.run(59.0)
    assert bench.group.entrance.admits(token, wall=bench.wall)
    bench.run(60.0)
    assert not bench.group.entrance.admits(token, wall=bench.wall)
    bench.run(62.0)
    record = bench.group.poll_record()
    assert record is not None
    assert [found.id for found in record.members.join_tokens] == [id_of(lasting)]
    assert bench.group.poll_timeout() is None
    bench.group.entrance.void_join_token(id_of(lasting), now=bench.now, wall=bench.wall)
    assert not bench.group.entrance.admits(lasting, wall=bench.wall)


def test_a_member_changes_its_token_and_the_first_use_of_the_new_one_ends_the_old() -> None:
    bench = Bench()
    bench.enrol("A")
    assert not bench.group.entrance.awaits_token("A")
    new = bench.group.entrance.rotate_token("A", None, now=0.0, wall=WALL).token
    assert new is not None
    assert bench.group.entrance.awaits_token("A")
    assert [bench.group.authenticate(token) for token in (bench.tokens["A"], new)] == ["A", "A"]
    bench.group.poll_record()
    bench.group.entrance.confirm_token(bench.tokens["A"], now=0.0, wall=WALL)
    assert bench.group.poll_record() is None
    bench.group.entrance.confirm_token(new, now=0.0, wall=WALL)
    assert bench.group.poll_record() is not None
    assert [bench.group.authenticate(token) for token in (bench.tokens["A"], new)] == [None, "A"]
    assert bench.group.counts["token_rotations"] == 1
