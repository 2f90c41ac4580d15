"""Corpora: files of every kind, long texts, mappings, and damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from logitkit.errors import FileFormatError
from logitkit.processors.ngram import Documents, TextFiles, corpus


def write_files(folder: Path) -> dict[str, Path]:
    """Write the same texts to every kind of file and return the paths by kind."""
    kinds = {"txt": "\ufefffirst text", "jsonl": '{"text": "second"}\n\n{"text": "third"}\n'}
    paths = {kind: folder / f"b.{kind}" for kind in kinds}
    for kind, path in list(paths.items()):
        path.write_text(kinds[kind], encoding="utf-8")
        packed = folder / f"c.{kind}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        paths[f"{kind}.gz"] = packed
    return paths


def test_files_of_every_kind(tmp_path: Path) -> None:
    """Text, JSON lines, compressed files and folders are read in the order of names, without byte order marks."""
    paths = write_files(tmp_path)
    assert list(TextFiles([paths["txt"]])) == ["first text"] == list(TextFiles([paths["txt.gz"]]))
    assert list(TextFiles([paths["jsonl"]])) == ["second", "third"] == list(TextFiles([paths["jsonl.gz"]]))
    (tmp_path / ".hidden").write_text("never")
    files = TextFiles([tmp_path])
    assert list(files) == ["second", "third", "first text"] * 2
    assert files.read == files.bytes == sum(path.stat().st_size for path in paths.values())
    assert [source["name"] for source in files.sources] == ["b.jsonl", "b.txt", "c.jsonl.gz", "c.txt.gz"]
    assert files.sources[0]["sha256"] == files.sources[2]["sha256"]


def test_long_texts_are_cut_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text is split at blank lines without a loss of characters, for blocks of any size."""
    monkeypatch.setattr(corpus, "LONGEST", 12)
    monkeypatch.setattr(corpus, "BLOCK", 5)
    text = "abc\n\ndéfghij\n\nklm nopqrstuvwxyz0123456789\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    pieces = list(TextFiles([tmp_path / "a.txt"]))
    assert "".join(pieces) == text == "".join(Documents([text])) and pieces[0] == "abc"
    assert max(map(len, pieces)) <= 12


def test_mappings_hold_their_text_in_a_field() -> None:
    """The text of a mapping is read from the field."""
    assert list(Documents([{"body": "a"}, "b"], field="body")) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"one\ntwo\ncaf\xe9!", r"must be UTF-8, got byte 0xe9 at offset 11 \(line 3\).*--encoding cp1252"),
        ("a.txt", b"one\n" + "é".encode()[:1], r"got byte 0xc3 at offset 4 \(line 2\): unexpected end of data"),
        ("a.txt.gz", gzip.compress(b"some text", mtime=0)[:-6], "must be a whole gzip file"),
        ("a.txt.gz", b"no gzip at all", "must be a whole gzip file"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "must contain JSON on each line, got line 2"),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_bad_files_say_where(
    name: str, content: bytes, says: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the offset and line of the bad byte, for blocks of any size."""
    monkeypatch.setattr(corpus, "BLOCK", block)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=says):
        list(TextFiles([tmp_path / name]))
