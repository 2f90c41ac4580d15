"""A full disk: one error, whole records stay, and the next writer continues."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from command_line import logitkit_command
from logitkit.bench.execution import Store
from logitkit.cli import main
from logitkit.files import save_tensors, system_errors
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_a_full_disk_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that meets a full disk says so in one line and ends with status 1."""

    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(main.typer.core.TyperGroup, "invoke", full)
    result = CliRunner().invoke(main.app, ["list"])
    assert result.exit_code == 1 and "the disk must have free space" in result.output


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


class _Disk:
    """A disk for tensors that is full after some files; safetensors words its error so."""

    def __init__(self, free: int) -> None:
        self.free, self._write = free, safetensors.torch.save_file

    def save_file(self, *arguments: object, **settings: object) -> None:
        """Write a file, or raise as safetensors does without free space."""
        if self.free <= 0:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        self.free -= 1
        self._write(*arguments, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("free", [0, 1, 2])
def test_counting_on_a_full_disk_continues_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A full disk is one error, an older table stays as it is, and the same command later continues."""
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "corpus.jsonl").write_text('{"text": "abcd"}\n{"text": "bcda"}\n')
    out = tmp_path / "table.safetensors"
    arguments = ("train-ngram", tmp_path / "corpus.jsonl", "--tokenizer", tmp_path / "model", "-o", out)
    assert logitkit_command(*arguments).exit_code == 0
    before, want = out.read_bytes(), NgramTable.load(out)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", _Disk(free).save_file)
        result = logitkit_command(*arguments)
    assert (result.exit_code == 0) == (free == 2), result.output  # the counts of the chunk, then the table
    assert free == 2 or ("the disk must have free space" in result.stderr and out.read_bytes() == before)
    assert logitkit_command(*arguments).exit_code == 0
    for got, level in zip(NgramTable.load(out).levels, want.levels, strict=True):
        assert torch.equal(torch.as_tensor(got.counts), torch.as_tensor(level.counts))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "model", "table.safetensors"]


def test_errors_of_safetensors_keep_their_number(tmp_path: Path) -> None:
    """Writing into a folder that is none fails like any other file, and a fault of the tensors keeps its type."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        save_tensors({"a": torch.ones(1)}, tmp_path / "file" / "table")
    with pytest.raises(SafetensorError), system_errors(tmp_path):
        raise SafetensorError("a fault of the tensors")
