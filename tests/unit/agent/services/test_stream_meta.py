from dataclasses import replace
from pathlib import Path

import pytest

from agent.services.stream_meta import Meta
from common.blocks import BLOCK_BYTES, Blocks

META = Meta("aa", "receive", 2_000.0, "model.bin", "/in/.model.bin.part", 2_500, 1_000)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    META.save(tmp_path)
    assert Meta.load(tmp_path) == META
    assert META.blocks == Blocks.of(2_500, 1_000)
    assert META.blocks.closing == 4


def test_a_large_files_record_tells_its_blocks() -> None:
    blocks = replace(META, size_bytes=3 * BLOCK_BYTES).blocks
    assert blocks.per_block == BLOCK_BYTES // 1_000
    assert blocks.closing == blocks.pieces + 4


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"opening": "aa"}', "null"],
)
def test_a_spoilt_record_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(ValueError, match=r".*"):
        Meta.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "thief"},
        {"path": 5},
        {"name": None},
        {"expires": "soon"},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"piece_bytes": 0},
        {"opening": "xyz"},
        {"opening": ""},
    ],
)
def test_a_record_with_a_wrong_field_is_an_error(tmp_path: Path, change: dict[str, object]) -> None:
    replace(META, **change).save(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r".*"):
        Meta.load(tmp_path)
