import json
import math

import pytest
from pydantic import ValidationError

from server.core.join_tokens import JoinTerms
from server.core.members import Members
from server.core.snapshot import MembersRecord
from tests.unit.server.harness import WALL, entropy


def test_a_record_of_the_first_form_is_read_and_its_join_tokens_admit() -> None:
    members = Members(wall=WALL, entropy=entropy())
    token = members.join_tokens.add(JoinTerms(), now=0.0, wall=WALL)
    stored = json.loads(members.record().model_dump_json())
    stored["join_token_hashes"] = [found["token_hash"] for found in stored.pop("join_tokens")]
    again = Members(wall=WALL, entropy=entropy(), stored=MembersRecord.model_validate_json(json.dumps(stored)))
    assert again.join_tokens.admits(token, wall=WALL)
    (found,) = again.join_tokens.records
    assert (found.created, found.expires, found.uses_left, found.note) == (0.0, None, None, "")
    assert MembersRecord.model_validate_json(again.record().model_dump_json()) == again.record()


@pytest.mark.parametrize("hashes", [None, 5, {}, [5], [None], ["0" * 64, []], ["short"]])
def test_a_record_of_the_first_form_whose_hashes_are_none_is_refused(hashes: object) -> None:
    stored = json.loads(Members(wall=WALL, entropy=entropy()).record().model_dump_json())
    del stored["join_tokens"]
    with pytest.raises(ValidationError, match="join_token"):
        MembersRecord.model_validate_json(json.dumps({**stored, "join_token_hashes": hashes}))


@pytest.mark.parametrize(
    "part", [{"created": math.nan}, {"expires": math.nan}, {"expires": math.inf}, {"uses_left": -1}, {"uses_left": 0.5}]
)
def test_a_join_token_with_a_time_or_a_count_that_is_none_is_refused(part: dict[str, float]) -> None:
    members = Members(wall=WALL, entropy=entropy())
    members.join_tokens.add(JoinTerms(), now=0.0, wall=WALL)
    stored = json.loads(members.record().model_dump_json())
    stored["join_tokens"][0] |= part
    with pytest.raises(ValidationError, match="join_tokens"):
        MembersRecord.model_validate_json(json.dumps(stored))


@pytest.mark.parametrize("stored", ["[]", "{}", "null"])
def test_what_is_no_record_is_refused(stored: str) -> None:
    with pytest.raises(ValidationError):
        MembersRecord.model_validate_json(stored)
