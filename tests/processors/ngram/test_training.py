"""Training: counts of chunks add up, an interrupted training resumes, and unsuitable corpora are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.ngram import NgramTable, TextFiles, training
from logitkit.processors.ngram.training import train
from logitkit.registry.laws import tiny_tokenizer

TEXTS = ["the first text", "a second one, the longest of them", "x", "", "the last text</s>and after its end"]


def same(one: NgramTable, other: NgramTable) -> bool:
    """Return whether two tables have the same n-grams and counts."""
    return all(
        torch.equal(a.keys, b.keys) and torch.equal(a.counts, b.counts)
        for a, b in zip(one.levels, other.levels, strict=True)
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenize batches of ten characters, so that five texts make several chunks."""
    monkeypatch.setattr(training, "BATCH", 10)


def test_documents_and_special_tokens_break() -> None:
    """No n-gram contains an end token within a text or crosses it."""
    tokenizer = tiny_tokenizer()
    table = NgramTable.train(TEXTS, tokenizer)
    halves = ["the first text", "a second one, the longest of them", "x", "the last text", "and after its end"]
    ids = tokenizer(halves)["input_ids"]
    assert same(table, NgramTable.count(ids, size=table.size, special=table.special.tolist()))
    assert table.tokens == sum(map(len, ids))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("chunk", [1, 20, 1000])
def test_chunks_add_up(chunk: int, tmp_path: Path) -> None:
    """Chunks of any size give the same table, in memory and in a folder, from an iterator that is read once."""
    whole = train(TEXTS, tiny_tokenizer())
    read: list[int] = []
    table = train(iter(TEXTS), tiny_tokenizer(), chunk=chunk, resume=tmp_path / "parts", advance=read.append)
    assert same(table, whole) and sum(read) == sum(map(len, tiny_tokenizer()(TEXTS)["input_ids"]))
    assert same(train(iter(TEXTS), tiny_tokenizer(), chunk=chunk), whole)


@pytest.mark.usefixtures("small")
def test_an_interrupted_training_resumes(tmp_path: Path) -> None:
    """After an interruption, counted texts are not tokenized again and the table is the same."""
    folder = tmp_path / "parts"

    def interrupted() -> Iterator[str]:
        yield from TEXTS[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(interrupted(), tiny_tokenizer(), chunk=1, resume=folder)
    assert len(list(folder.iterdir())) == 2
    read: list[int] = []
    table = train(TEXTS, tiny_tokenizer(), chunk=1, resume=folder, advance=read.append)
    assert same(table, train(TEXTS, tiny_tokenizer()))
    assert sum(read) == sum(map(len, tiny_tokenizer()(TEXTS[2:])["input_ids"]))


@pytest.mark.usefixtures("small")
def test_saved_counts_must_fit(tmp_path: Path) -> None:
    """Saved counts of other texts, more texts or other settings are refused; the error names the folder to remove."""
    folder = tmp_path / "parts"
    train(TEXTS, tiny_tokenizer(), chunk=1, resume=folder)
    with pytest.raises(FileFormatError, match="have changed; remove the folder"):
        train([*TEXTS[:-1], "something else"], tiny_tokenizer(), chunk=1, resume=folder)
    with pytest.raises(FileFormatError, match="the corpus has 2; remove the folder"):
        train(TEXTS[:2], tiny_tokenizer(), chunk=1, resume=folder)
    with pytest.raises(FileFormatError, match="must contain counts of these settings"):
        train(TEXTS, tiny_tokenizer(), chunk=1, orders=2, resume=folder)
    (folder / "part-000000000009.safetensors").write_bytes(b"cut short")
    with pytest.raises(FileFormatError, match="whole safetensors file"):
        train(TEXTS, tiny_tokenizer(), chunk=1, resume=folder)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: TextFiles([path / "none"]), "path must be a file or folder that exists"),
        (lambda path: TextFiles([path]), "path must be a folder with files"),
        (lambda path: TextFiles([path], encoding="utf-9"), "encoding must be a text encoding known to Python"),
        (lambda path: train("one text", tiny_tokenizer()), "texts must be an iterable of documents"),
        (lambda path: train([], tiny_tokenizer()), "texts must be at least one token"),
        (lambda path: train(["</s>"], tiny_tokenizer()), "texts must be at least one token"),
        (lambda path: train(["a", 3], tiny_tokenizer()), "document 2 must be text"),
        (lambda path: train([{"body": "a"}], tiny_tokenizer()), "contain text in field 'text', got 'body'"),
        (lambda path: train(["a"], tiny_tokenizer(), orders=0), "orders must be a whole number from 1 to 5"),
    ],
)
def test_bad_corpora_are_refused(make: Any, says: str, tmp_path: Path) -> None:
    """An unsuitable corpus is refused and no file is written."""
    with pytest.raises(ParameterError, match=says):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_sources_are_kept(tmp_path: Path) -> None:
    """A table records the name and hash of every file, and of an iterable."""
    (tmp_path / "a.txt").write_text("some text")
    (source,) = train(TextFiles([tmp_path]), tiny_tokenizer()).sources
    assert source["name"] == "a.txt" and source["bytes"] == 9 and len(source["sha256"]) == 64
    (stream,) = train(TEXTS, tiny_tokenizer()).sources
    assert stream["documents"] == len(TEXTS) and json.dumps(stream)
