"""Atomic files: what they may replace, and what they must leave as it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from scoresde._core.atomic import atomic_file
from scoresde.cli.outputs import atomic_output, check_writable


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_or_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for target in (pipe, link):
        with pytest.raises(ValueError, match=rf"must go to a file, .*{target.name} is a device or a pipe"):
            check_writable(target)
        with pytest.raises(ValueError, match="is a device or a pipe"), atomic_output(target) as path:
            path.write_text("x")
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link, file = tmp_path / "newest.txt", tmp_path / "runs" / "a.txt"
    file.write_text("before")
    link.symlink_to(file)
    with atomic_file(link) as path:
        path.write_text("after")
    assert link.is_symlink()
    assert file.read_text() == "after"
    assert list(file.parent.iterdir()) == [file]
