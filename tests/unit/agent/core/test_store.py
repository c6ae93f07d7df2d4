"""Why a store says no."""

from agent.core.store import StoreError
from common.errors import ArborcastError


def test_a_stores_refusal_has_a_slug_for_the_receipt_and_a_sentence_for_people() -> None:
    error = StoreError("no-space", "5 bytes are left")
    assert isinstance(error, ArborcastError)
    assert (error.reason, error.detail, str(error)) == ("no-space", "5 bytes are left", "5 bytes are left")
