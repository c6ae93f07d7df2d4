import os
from pathlib import Path

from agent.services.handles import Handles


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    handles = Handles(most=2)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    for _ in range(2):
        for path in paths:
            assert os.pread(handles.get(path, os.O_RDONLY), 1, 0) == path.name.encode()
    assert len(handles._open) == 2
    first = handles.get(paths[2], os.O_RDONLY)
    assert handles.get(paths[2], os.O_RDONLY) == first
    handles.forget(paths[2])
    assert len(handles._open) == 1
    handles.close()
