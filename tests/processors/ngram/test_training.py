"""Training from files and streams: chunks add up to the whole, interruption loses nothing, bad files say where."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.ngram import corpus, training
from logitkit.processors.ngram.corpus import Files, Texts
from logitkit.processors.ngram.table import NgramTable
from logitkit.processors.ngram.training import train
from logitkit.registry.laws import tiny_tokenizer

TEXTS = ["the first text", "a second one, the longest of them", "x", "", "the last text</s>and after its end"]


def same(one: NgramTable, other: NgramTable) -> bool:
    """The same n-grams and counts."""
    return all(
        torch.equal(a.keys, b.keys) and torch.equal(a.counts, b.counts)
        for a, b in zip(one.levels, other.levels, strict=True)
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenize after every few characters, so that a handful of texts makes several chunks."""
    monkeypatch.setattr(training, "BATCH", 10)


def test_documents_and_special_tokens_break() -> None:
    """As counting the ids by hand: an end token in a text is no n-gram, and neither is what crosses it."""
    tokenizer = tiny_tokenizer()
    table = NgramTable.train(TEXTS, tokenizer)
    halves = ["the first text", "a second one, the longest of them", "x", "the last text", "and after its end"]
    ids = tokenizer(halves)["input_ids"]
    assert same(table, NgramTable.count(ids, size=table.size, special=table.special.tolist()))
    assert table.tokens == sum(map(len, ids))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("chunk", [1, 20, 1000])
def test_chunks_add_up(chunk: int, tmp_path: Path) -> None:
    """Whatever the chunk, in memory or in a folder, from a stream that is read once."""
    whole = train(TEXTS, tiny_tokenizer())
    read: list[int] = []
    table = train(iter(TEXTS), tiny_tokenizer(), chunk=chunk, resume=tmp_path / "runs", advance=read.append)
    assert same(table, whole) and sum(read) == sum(map(len, tiny_tokenizer()(TEXTS)["input_ids"]))
    assert same(train(iter(TEXTS), tiny_tokenizer(), chunk=chunk), whole)


@pytest.mark.usefixtures("small")
def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    """What was counted is not tokenized again; the table is the same."""
    runs = tmp_path / "runs"

    def interrupted() -> Iterator[str]:
        yield from TEXTS[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(interrupted(), tiny_tokenizer(), chunk=1, resume=runs)
    assert len(list(runs.iterdir())) == 2
    read: list[int] = []
    table = train(TEXTS, tiny_tokenizer(), chunk=1, resume=runs, advance=read.append)
    assert same(table, train(TEXTS, tiny_tokenizer()))
    assert sum(read) == sum(map(len, tiny_tokenizer()(TEXTS[2:])["input_ids"]))


@pytest.mark.usefixtures("small")
def test_what_was_counted_must_fit(tmp_path: Path) -> None:
    """Other texts, fewer texts, other settings: refused, with the folder to remove."""
    runs = tmp_path / "runs"
    train(TEXTS, tiny_tokenizer(), chunk=1, resume=runs)
    with pytest.raises(FileFormatError, match="are others now; remove the folder"):
        train([*TEXTS[:-1], "something else"], tiny_tokenizer(), chunk=1, resume=runs)
    with pytest.raises(FileFormatError, match="where there are 2 now"):
        train(TEXTS[:2], tiny_tokenizer(), chunk=1, resume=runs)
    with pytest.raises(FileFormatError, match="must hold what these settings counted"):
        train(TEXTS, tiny_tokenizer(), chunk=1, orders=2, resume=runs)
    (runs / "run-000000000009.safetensors").write_bytes(b"cut short")
    with pytest.raises(FileFormatError, match="whole safetensors file"):
        train(TEXTS, tiny_tokenizer(), chunk=1, resume=runs)


def write(folder: Path) -> dict[str, Path]:
    """The same texts in every kind of file."""
    kinds = {"txt": "\ufefffirst text", "jsonl": '{"text": "second"}\n\n{"text": "third"}\n'}
    paths = {kind: folder / f"b.{kind}" for kind in kinds}
    for kind, path in list(paths.items()):
        path.write_text(kinds[kind], encoding="utf-8")
        packed = folder / f"c.{kind}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        paths[f"{kind}.gz"] = packed
    return paths


def test_files_of_every_kind(tmp_path: Path) -> None:
    """Text, JSON lines, both packed, folders in the order of names; a byte order mark is no text."""
    paths = write(tmp_path)
    assert list(Files([paths["txt"]])) == ["first text"] == list(Files([paths["txt.gz"]]))
    assert list(Files([paths["jsonl"]])) == ["second", "third"] == list(Files([paths["jsonl.gz"]]))
    (tmp_path / ".hidden").write_text("never")
    files = Files([tmp_path])
    assert list(files) == ["second", "third", "first text"] * 2
    assert files.read == files.bytes == sum(path.stat().st_size for path in paths.values())
    assert [source["name"] for source in files.sources] == ["b.jsonl", "b.txt", "c.jsonl.gz", "c.txt.gz"]
    assert files.sources[0]["sha256"] == files.sources[2]["sha256"]


def test_long_texts_are_cut_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No character is lost, whatever the blocks that are read."""
    monkeypatch.setattr(corpus, "LONGEST", 12)
    monkeypatch.setattr(corpus, "BLOCK", 5)
    text = "abc\n\ndéfghij\n\nklm nopqrstuvwxyz0123456789\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    pieces = list(Files([tmp_path / "a.txt"]))
    assert "".join(pieces) == text == "".join(Texts([text])) and pieces[0] == "abc"
    assert max(map(len, pieces)) <= 12


def test_mappings_hold_their_text_in_a_field() -> None:
    """As rows of a data set do."""
    assert list(Texts([{"body": "a"}, "b"], field="body")) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"one\ntwo\ncaf\xe9!", r"must be UTF-8, got byte 0xe9 at offset 11 \(line 3\).*--encoding cp1252"),
        ("a.txt", b"one\n" + "é".encode()[:1], r"got byte 0xc3 at offset 4 \(line 2\): unexpected end of data"),
        ("a.txt.gz", gzip.compress(b"some text", mtime=0)[:-6], "must be a whole gzip file"),
        ("a.txt.gz", b"no gzip at all", "must be a whole gzip file"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "must hold JSON on each line, got line 2"),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_bad_files_say_where(
    name: str, content: bytes, says: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the blocks that are read."""
    monkeypatch.setattr(corpus, "BLOCK", block)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=says):
        list(Files([tmp_path / name]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: Files([path / "none"]), "path must be a file or folder that exists"),
        (lambda path: Files([path]), "path must be a folder with files"),
        (lambda path: Files([path], encoding="utf-9"), "encoding must be one that Python knows"),
        (lambda path: train("one text", tiny_tokenizer()), "texts must be an iterable of documents"),
        (lambda path: train([], tiny_tokenizer()), "texts must be at least one token"),
        (lambda path: train(["</s>"], tiny_tokenizer()), "texts must be at least one token"),
        (lambda path: train(["a", 3], tiny_tokenizer()), "document 2 must be text"),
        (lambda path: train([{"body": "a"}], tiny_tokenizer()), "hold text in field 'text', got 'body'"),
        (lambda path: train(["a"], tiny_tokenizer(), orders=0), "orders must be a whole number from 1 to 5"),
    ],
)
def test_bad_corpora_are_refused(make: Any, says: str, tmp_path: Path) -> None:
    """Before anything is counted, and nothing is left behind."""
    with pytest.raises(ParameterError, match=says):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_sources_are_kept(tmp_path: Path) -> None:
    """Name and hash of every file, and of a stream."""
    (tmp_path / "a.txt").write_text("some text")
    (source,) = train(Files([tmp_path]), tiny_tokenizer()).sources
    assert source["name"] == "a.txt" and source["bytes"] == 9 and len(source["sha256"]) == 64
    (stream,) = train(TEXTS, tiny_tokenizer()).sources
    assert stream["documents"] == len(TEXTS) and json.dumps(stream)
