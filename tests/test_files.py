"""Atomic replacement of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from logitkit.files import replace_file


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    """The old content stays readable within the block; afterwards the new content is all that the folder holds."""
    path = tmp_path / "sub" / "table.bin"
    with replace_file(path) as temporary:
        temporary.write_text("old")
    with replace_file(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent and temporary.suffix == ".bin"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    """An exception in the block passes through; neither a partial file nor a temporary file remains."""
    path = tmp_path / "table.bin"
    path.write_text("old")
    with pytest.raises(type(error)), replace_file(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_leaves_nothing_behind(tmp_path: Path) -> None:
    """A folder at the path cannot be replaced by a file; the temporary file is removed."""
    (tmp_path / "table.bin").mkdir()
    with pytest.raises(OSError), replace_file(tmp_path / "table.bin") as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["table.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
@pytest.mark.parametrize("written", ["in place", "by a rename"])
def test_permission_bits_follow_the_umask(tmp_path: Path, umask: int, mode: int, written: str) -> None:
    """The file gets the mode of any newly created file, also where the writer replaces the temporary file itself."""
    before = os.umask(umask)
    try:
        with replace_file(tmp_path / "table.bin") as temporary:
            temporary.write_text("new")
            if written == "by a rename":  # as safetensors does, with mode 0600
                (tmp_path / "other").touch(0o600)
                (tmp_path / "other").replace(temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "table.bin").stat().st_mode) == mode


def test_the_content_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is fsynced while the path still has its old content."""
    path, synced = tmp_path / "table.bin", []
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_text()))
    with replace_file(path) as temporary:
        temporary.write_text("new")
    assert synced[0] == "old" and path.read_text() == "new"
