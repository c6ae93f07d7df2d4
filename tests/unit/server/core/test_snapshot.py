import json

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


@pytest.mark.parametrize("stored", ["[]", "{}", "null"])
def test_what_is_no_record_is_refused(stored: str) -> None:
    with pytest.raises(ValidationError):
        MembersRecord.model_validate_json(stored)
