"""Who wrote what: openings and last words against the roster."""

from collections import Counter
from dataclasses import replace

import pytest

from agent.core.authors import Authors
from agent.core.events import Receipt
from common.fields import encode_key
from common.limits import MAX_REASON_BYTES
from common.messages import Roster, RosterEntry
from common.signing import Signer
from tests.unit.agent.core.parts import FILE, GROUP, SECRET, SIGNER

OTHER = Signer(bytes([7]) * 32, GROUP)


def roster(**keys: Signer) -> Roster:
    entries = tuple(
        RosterEntry(device=name, public_key=encode_key(SECRET), signing_key=encode_key(signer.public_key))
        for name, signer in keys.items()
    )
    return Roster(version=1, devices=entries, key_epoch=1, group_keys={1: encode_key(SECRET)})


@pytest.fixture
def authors() -> Authors:
    made = Authors("B", GROUP, OTHER, Counter())
    made.set_roster(roster(A=SIGNER, B=OTHER))
    return made


def test_an_opening_is_its_sources_if_the_roster_has_its_signer_under_that_name(authors: Authors) -> None:
    assert authors.vouch_for(FILE)
    assert not authors.vouch_for(replace(FILE, source="B"))
    assert not authors.vouch_for(replace(FILE, source="C"))
    assert authors._drops == {"opening-forged": 1, "opening-of-stranger": 1}
    authors.set_roster(roster(C=SIGNER))
    assert authors.vouch_for(replace(FILE, source="C"))
    assert not authors.vouch_for(FILE), "who left vouches for nothing"


def test_what_verifies_a_stream_takes_its_signers_word_alone(authors: Authors) -> None:
    verifier = authors.verifier(FILE)
    assert verifier.is_signed(b"block", b"data", SIGNER.sign(b"block", b"data"))
    assert not verifier.is_signed(b"block", b"data", OTHER.sign(b"block", b"data"))


def test_a_last_word_is_genuine_for_its_stream_and_device_alone(authors: Authors) -> None:
    word = authors.last_word(FILE.stream, Receipt("refused", 5, "é" * MAX_REASON_BYTES))
    assert word.device == "B"
    assert len(word.reason.encode()) == MAX_REASON_BYTES, "cut before it is signed"
    assert authors.is_genuine(FILE.stream, word)
    for wrong in (
        replace(word, device="A"),
        replace(word, device="C"),
        replace(word, state="verified"),
        replace(word, held_bytes=6),
        replace(word, reason=""),
        replace(word, signature=bytes(64)),
    ):
        assert not authors.is_genuine(FILE.stream, wrong)
    assert not authors.is_genuine(bytes(16), word)
    assert authors._drops == {"receipt-forged": 7}
