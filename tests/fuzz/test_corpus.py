"""What fuzzing has reached before is reached again: the corpus and the seeds, each input as an ordinary call."""

import pytest

from tests.fuzz.__main__ import MAX_CORPUS_BYTES
from tests.fuzz.targets import BY_NAME, CORPUS, TARGETS, Target

_ALL_BYTES = 1_000_000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_kept_input_keeps_the_promises(target: Target) -> None:
    inputs = {f"seed {number}": data for number, data in enumerate(target.seeds())}
    # A target that is new has no corpus yet.
    inputs.update({path.name: path.read_bytes() for path in sorted((CORPUS / target.name).glob("*"))})
    for name, data in inputs.items():
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"target {target.name}, input {name}: {data!r}")
            raise


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    folders = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in CORPUS.iterdir()}
    assert set(folders) <= set(BY_NAME)
    assert max(folders.values()) <= MAX_CORPUS_BYTES
    assert sum(folders.values()) < _ALL_BYTES
