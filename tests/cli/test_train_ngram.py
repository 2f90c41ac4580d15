"""``logitkit train-ngram``: a table from a corpus, interruptions, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import logitkit
from command_line import logitkit_command
from logitkit.processors.ngram import NgramTable, training
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXT = "the text of a book, and the other text of it"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that holds the tiny tokenizer and no model."""
    path = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(path)
    return str(path)


def test_a_table_is_written_and_used(tokenizer_folder: str, tmp_path: Path) -> None:
    """The table equals the one that `NgramTable.train` counts, and a chain can use the file."""
    (tmp_path / "book.txt").write_text(TEXT)
    out = tmp_path / "sub" / "t.safetensors"
    command = ["train-ngram", tmp_path / "book.txt", "--tokenizer", tokenizer_folder, "-o", out]
    result = logitkit_command(*command, "--orders", 2, "--json")
    data = json.loads(result.stdout)
    table = NgramTable.train([TEXT], tiny_tokenizer(), orders=2)
    assert data["tokens"] == table.tokens == len(TEXT) and data["ngrams"] == [len(level) for level in table.levels]
    assert data["fingerprint"] == table.fingerprint and data["sources"][0]["name"] == "book.txt"
    text = logitkit_command(*command).stdout
    assert "n-grams of orders 1 to 3" in text and "logitkit run" in text
    assert [path.name for path in out.parent.iterdir()] == ["t.safetensors"]
    chain = f"ngram_style({str(out)!r}, 0.3)"
    assert logitkit.generate(tiny_model(), tiny_tokenizer(), "the", chain=chain, max_new_tokens=3).texts


def test_an_interrupted_command_continues(
    tokenizer_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts stay beside the table until the table is complete; other settings refuse them."""
    monkeypatch.setattr(training, "BATCH", 1)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(TEXT)
    out = tmp_path / "out" / "t.safetensors"
    command = [tmp_path / "a.txt", tmp_path / "b.txt", "--tokenizer", tokenizer_folder, "-o", out, "--chunk", 1]
    count = training.counting.count
    calls: list[int] = []

    def interrupted(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count(*arguments, **more)

    monkeypatch.setattr(training.counting, "count", interrupted)
    result = logitkit_command("train-ngram", *command)
    assert result.exit_code == 130 and "the same command continues" in result.output
    assert [path.name for path in out.parent.iterdir()] == ["t.safetensors.partial"]
    monkeypatch.setattr(training.counting, "count", count)
    other = logitkit_command("train-ngram", *command, "--orders", 2)
    assert other.exit_code == 2 and "remove the folder to start again" in other.output
    again = logitkit_command("train-ngram", *command)
    assert again.exit_code == 0 and "continuing from" in again.output, again.output
    assert NgramTable.load(out).tokens == 2 * len(TEXT) and not list(out.parent.glob("*.partial"))


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({"a.txt": b""}, [], "texts must be at least one token"),
        ({"a.txt": b"a\xff"}, [], "must be UTF-8, got byte 0xff at offset 1 (line 1)"),
        ({}, [], "path must be a folder with files"),
        ({"a.txt": b"a"}, ["--orders", "6"], "orders must be a whole number from 1 to 5, got 6"),
        ({"a.txt": b"a"}, ["--smoothing", "none"], "name must be one of 'add-k'"),
        ({"a.txt": b"a"}, ["--smoothing", "kneser-ney", "--strength", "2"], "strength must be a discount of 0 to 1"),
        ({"a.txt": b"a"}, ["--encoding", "x"], "encoding must be a text encoding known to Python"),
        ({"a.txt": b"a"}, ["--tokenizer", "no-such"], "no model named 'no-such'"),
        ({"a.txt": b"a"}, ["-o", "t.bin"], "--out must be a file *.safetensors"),
        ({"a.jsonl": b'{"body": "a"}'}, [], "contain text in field 'text', got 'body'"),
    ],
)
def test_wrong_input_is_refused(
    files: dict[str, bytes], more: list[str], message: str, tokenizer_folder: str, tmp_path: Path
) -> None:
    """The command ends with exit status 2 and one message, and writes no file."""
    (tmp_path / "corpus").mkdir()
    for name, content in files.items():
        (tmp_path / "corpus" / name).write_bytes(content)
    out = tmp_path / "t.safetensors"
    result = logitkit_command("train-ngram", tmp_path / "corpus", "--tokenizer", tokenizer_folder, "-o", out, *more)
    assert result.exit_code == 2 and message in result.output.replace("\n", ""), result.output
    assert "Traceback" not in result.output and [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_corpus_of_nltk_is_counted(tokenizer_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nltk:NAME/FILE` names a file of a corpus; it stands alone."""
    folder = tmp_path / "nltk" / "corpora" / "gutenberg"
    folder.mkdir(parents=True)
    (folder / "book.txt").write_text(TEXT)
    (folder / "other.txt").write_text("something else")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nltk")])
    out = tmp_path / "t.safetensors"
    command = ["train-ngram", "nltk:gutenberg/book.txt", "--tokenizer", tokenizer_folder, "-o", out, "--json"]
    data = json.loads(logitkit_command(*command).stdout)
    assert data["tokens"] == len(TEXT) and data["sources"][0]["name"] == "nltk:gutenberg/book.txt"
    refused = logitkit_command(*command, folder)
    assert refused.exit_code == 2 and "must be files and folders, or one nltk corpus" in refused.stderr
