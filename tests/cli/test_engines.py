"""Long commands on another engine: the same results in any order, from pickled jobs, and resumed runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from logitkit.execution import ENGINES
from sharded_commands import COMMANDS, prepare, run, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints and texts."""
    return prepare(tmp_path_factory.mktemp("sharded"))


@pytest.mark.parametrize("command", COMMANDS)
def test_any_engine_gives_the_results_of_this_process(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Backwards, on a pickled job, and continued after an interruption: the same output and the same files."""
    monkeypatch.setitem(ENGINES, "backwards", "work_elsewhere:backwards")
    monkeypatch.setitem(ENGINES, "interrupted", "work_elsewhere:interrupted")
    want = run(command, folder, tmp_path / "local", "local", capsys)
    assert run(command, folder, tmp_path / "backwards", "backwards", capsys) == want != ""
    with contextlib.suppress(KeyboardInterrupt):
        run(command, folder, tmp_path / "continued", "interrupted", capsys)
    partly = written(tmp_path / "continued")
    assert partly and partly != written(tmp_path / "local")
    assert run(command, folder, tmp_path / "continued", "local", capsys) == want
    for out in ("backwards", "continued"):
        assert written(tmp_path / out) == written(tmp_path / "local")


@pytest.mark.parametrize("command", COMMANDS[:3])
def test_an_unknown_engine_is_refused_in_one_line(command: str, folder: Path, tmp_path: Path) -> None:
    """Before a file is written."""
    with pytest.raises(AssertionError, match="did you mean 'ray'"):
        run(command, folder, tmp_path / "out", "rai")
    assert written(tmp_path / "out") == {}
