"""Paths of commands and parameters: missing, folders, pipes, devices, unreadable or empty; one error each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import logitkit
from command_line import logitkit_command
from logitkit import models
from logitkit.bench.config import datasource, runfile
from logitkit.bench.execution import Store
from logitkit.errors import FileFormatError, LogitkitError, ModelError
from logitkit.models.cache import MANIFEST, read_manifest
from logitkit.processors.alignment import Alignment
from logitkit.processors.cascade import PostHocRule, RouterHead
from logitkit.processors.cascade.label_files import read_labels
from logitkit.processors.ngram import NgramTable
from logitkit.processors.ngram.corpus import TextFiles
from logitkit.processors.ngram.training import train
from logitkit.registry.laws import tiny_model, tiny_tokenizer

LINKS = {"zero": "/dev/zero", "memory": "/proc/self/mem", "under": "/dev/null/file"}
KINDS = ("missing", "folder", "empty", "pipe", "loop", "long", "null", *LINKS)


def place(folder: Path, kind: str, ending: str) -> Path:
    """Return a path that no command can use; reading the pipe or the device would not end."""
    path = folder / {"long": "x" * 300, "null": "a\0b"}.get(kind, kind)
    path = path.with_name(path.name + ending)
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind in LINKS:
        path.symlink_to(LINKS[kind])
    return path


def _parameter(name: str, parameter: str, path: Path) -> object:
    """Bind a chain whose parameter names a path."""
    value: object = [str(path)] if parameter == "models" else str(path)
    params = {"large": "large"} if parameter == "head" else {}
    resources = {"large": tiny_model(1)} if parameter == "head" else {}
    chain = logitkit.chain([{"name": name, "params": params | {parameter: value}}])
    return chain.bind(tiny_model(), tiny_tokenizer(), "ab", **resources)


READERS: list[tuple[str, Callable[[Path], object]]] = [
    (".yaml", logitkit.Chain.from_file),
    (".json", logitkit.Chain.from_file),
    (".yaml", runfile.read),
    (".safetensors", NgramTable.load),
    (".safetensors", Alignment.load),
    (".safetensors", lambda path: _parameter("ngram_style", "table", path)),
    ("", lambda path: _parameter("router", "head", path)),
    ("", lambda path: _parameter("contrastive", "amateur", path)),
    ("", lambda path: _parameter("cascade", "large", path)),
    ("", lambda path: _parameter("ensemble", "models", path)),
    ("", lambda path: models.load(str(path))),
    ("", RouterHead.load),
    ("", PostHocRule.load),
    ("", read_manifest),
    ("", lambda path: Store(path).__enter__()),
    (".arpa", lambda path: NgramTable.from_arpa(path, tiny_tokenizer())),
    (".arpa.gz", lambda path: NgramTable.from_arpa(path, tiny_tokenizer())),
    (".txt", lambda path: train(TextFiles([path]), tiny_tokenizer())),
    (".jsonl.gz", lambda path: train(TextFiles([path]), tiny_tokenizer())),
    (".jsonl", read_labels),
    (".jsonl", datasource.read),
    (".txt.gz", datasource.read),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(READERS)))
def test_readers_refuse_unusable_paths(tmp_path: Path, number: int, kind: str) -> None:
    """Every reader of a file or a folder gives one error of logitkit, and waits for no pipe."""
    ending, read = READERS[number]
    if (number, kind) in ((0, "empty"), (14, "missing"), (14, "folder")):
        return  # an empty file of YAML is the empty chain; a store makes its folder
    with pytest.raises(LogitkitError) as caught:
        read(place(tmp_path, kind, ending))
    assert not isinstance(caught.value, logitkit.errors.PluginError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["head.json", "head.safetensors", MANIFEST, "results.jsonl", "config.json"])
def test_files_of_folders_are_checked(tmp_path: Path, kind: str, name: str) -> None:
    """The same holds for the files inside of heads, models and stores."""
    if kind in ("long", "null"):
        return
    (tmp_path / "head.json").write_text('{"kind": "router head", "version": 1}')
    (tmp_path / name).unlink(missing_ok=True)
    made = place(tmp_path, kind, "")
    if kind != "missing":
        made.rename(tmp_path / name) if kind != "loop" else (tmp_path / name).symlink_to(name)
    readers: dict[str, Callable[[Path], object]] = {MANIFEST: read_manifest}
    readers["config.json"] = lambda path: models.load(str(path))
    if name == "results.jsonl" and kind not in ("missing", "empty"):
        readers[name] = Store
    elif name == "results.jsonl":
        return
    with pytest.raises(FileFormatError if name != "config.json" else ModelError):
        readers.get(name, RouterHead.load)(tmp_path)


COMMANDS = [
    ["run", "hi", "--model", "no-model", "--chain", "PATH.yaml"],
    ["run", "hi", "--model", "PATH"],
    ["run", "--file", "PATH.txt", "--model", "no-model"],
    ["inspect", "--file", "PATH.txt", "--model", "no-model"],
    ["bench", "PATH.yaml"],
    ["bench", "report", "PATH.yaml"],
    ["bench", "power", "PATH.yaml"],
    ["bench", "choose", "PATH.yaml", "final.yaml"],
    ["label-divergence", "PATH.txt", "labels.jsonl", "--small", "no-model", "--large", "no-model"],
    ["train-router", "PATH.jsonl", "head", "--small", "no-model", "--large", "no-model"],
    ["train-attribute", "PATH.jsonl", "head", "--model", "no-model"],
    ["train-adadec", "PATH.jsonl", "threshold.json", "--model", "no-model"],
    ["train-ngram", "PATH.txt", "--tokenizer", "no-model", "-o", "table.safetensors"],
]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "null"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_refuse_unusable_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], kind: str
) -> None:
    """Every command that reads a file prints one error and ends with status 2."""
    monkeypatch.chdir(tmp_path)
    path = next(part for part in command if part.startswith("PATH"))
    given = place(tmp_path, kind, path.removeprefix("PATH"))
    result = logitkit_command(*(str(given) if part == path else part for part in command))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "long", "zero", "under"])
def test_a_page_is_written_to_usable_places_only(tmp_path: Path, kind: str) -> None:
    """A page replaces neither a pipe nor a folder."""
    result = logitkit_command("inspect", "hi", "--model", "no-model", "--out", place(tmp_path, kind, ".html"))
    assert result.exit_code == 2 and result.stderr.startswith("error: ")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"[1]", b"[" * 100_000, None])
def test_damaged_models_are_one_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A model folder with an empty, torn or foreign file is refused, whichever library notices."""
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-40] if content is None else content)
    with pytest.raises(ModelError, match="transformers cannot load this folder"):
        models.load(str(folder))


def test_a_folder_without_permission_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system without a rule of its own names its file, and is no traceback."""

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/closed/file")

    monkeypatch.setattr(shutil, "rmtree", closed)
    (tmp_path / "t.safetensors.partial").mkdir()
    (tmp_path / "corpus.txt").write_text("text")
    arguments = ("train-ngram", tmp_path / "corpus.txt", "--tokenizer", "x", "-o", tmp_path / "t.safetensors")
    result = logitkit_command(*arguments, "--fresh")
    assert result.exit_code == 1
    assert result.stderr == "error: /closed/file must be a file or folder that can be used, got: Permission denied\n"
