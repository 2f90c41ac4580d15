"""A full disk: one error, whole records stay, and the next writer continues."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner

from logitkit.bench.execution import Store
from logitkit.cli import main


def test_a_full_disk_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that meets a full disk says so in one line and ends with status 2."""

    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(main.typer.core.TyperGroup, "invoke", full)
    result = CliRunner().invoke(main.app, ["list"])
    assert result.exit_code == 2 and "the disk must have free space" in result.output


def test_a_store_on_a_full_disk_keeps_its_records(tmp_path: Path) -> None:
    """The error of the system reaches the caller, the lock is released, and whole records stay."""
    with Store(tmp_path) as store:
        store.add([{"key": "a"}])
    store = Store(tmp_path)
    with pytest.raises(OSError, match="No space left"), store:
        store._out.close()
        store._out = open("/dev/full", "w")  # noqa: SIM115, PTH123 - the store closes it
        store.add([{"key": "b"}])
    with Store(tmp_path) as again:
        assert list(again.records) == ["a"]
