"""Texts to count: files, folders and streams of documents, read piece by piece and hashed on the way."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from logitkit.errors import FileFormatError, ParameterError

LONGEST = 1 << 22  # characters of one document; longer ones are cut at a blank line
BLOCK = 1 << 20  # bytes read at once


class Corpus(Protocol):
    """Documents, and what they came from once they have been read."""

    sources: list[dict[str, Any]]

    def __iter__(self) -> Iterator[str]: ...


class Texts:
    """A stream of documents as strings, or as mappings that hold the text in a field (rows of a data set).

    Args:
        documents: any iterable; read once, never held as a whole.
        field: where a mapping holds its text.
    """

    def __init__(self, documents: Iterable[str | Mapping[str, Any]], *, field: str = "text") -> None:
        if isinstance(documents, str):
            raise ParameterError("train", "texts", "an iterable of documents", documents[:40], "put it in a list")
        self.documents, self.field, self.sources = documents, field, list[dict[str, Any]]()

    def __iter__(self) -> Iterator[str]:
        digest, count = hashlib.sha256(), 0
        for count, document in enumerate(self.documents, 1):
            text = _text_of(document, self.field, f"document {count}")
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            yield from _cut(iter([text]))
        self.sources = [{"name": "stream", "documents": count, "sha256": digest.hexdigest()}]


class Files:
    """Text files, each a document; ``.jsonl`` files hold one a line; ``.gz`` of either; folders of them.

    A text of more than 4 million characters is cut at blank lines, and no n-gram crosses a cut.

    Args:
        paths: files and folders; a folder is read through, hidden files left out.
        field: where a line of JSON holds its text.
        encoding: of all files, such as ``cp1252`` for old texts from Windows.

    Attributes:
        bytes: size of all files on disk.
        read: how much of that has been read, for a progress bar.

    Raises:
        ParameterError: a path that does not exist, a folder without files, or an unknown encoding.
    """

    def __init__(self, paths: Iterable[str | Path], *, field: str = "text", encoding: str = "utf-8") -> None:
        self.field, self.encoding, self.sources, self.read = field, encoding, list[dict[str, Any]](), 0
        try:
            codecs.getincrementaldecoder(encoding)
        except LookupError:
            raise ParameterError("corpus", "encoding", "one that Python knows, such as utf-8", encoding) from None
        self.files = [found for path in paths for found in _files_of(Path(path))]
        self.bytes = sum(path.stat().st_size for _, path in self.files)

    def __iter__(self) -> Iterator[str]:
        self.sources, self.read = [], 0
        for name, path in self.files:
            digest = hashlib.sha256()
            blocks = _decoded(self._blocks(path, digest), path, self.encoding)
            yield from _lines(blocks, path, self.field) if ".jsonl" in path.suffixes else _cut(blocks)
            self.sources.append({"name": name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()})

    def _blocks(self, path: Path, digest: Any) -> Iterator[bytes]:
        """The bytes of a file, unpacked, block by block."""
        before = self.read
        try:
            with path.open("rb") as raw:
                source: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
                while block := source.read(BLOCK):
                    digest.update(block)
                    self.read = before + raw.tell()
                    yield block
        except (gzip.BadGzipFile, EOFError) as error:
            raise FileFormatError(f"corpus: {path} must be a whole gzip file, got: {error}") from error


def _files_of(path: Path) -> list[tuple[str, Path]]:
    """The files that a path stands for, with the names they are recorded under."""
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise ParameterError("corpus", "path", "a file or folder that exists", str(path))
    inside = [(found.relative_to(path), found) for found in sorted(path.rglob("*")) if found.is_file()]
    shown = [(str(name), found) for name, found in inside if not any(part.startswith(".") for part in name.parts)]
    if not shown:
        raise ParameterError("corpus", "path", "a folder with files", str(path))
    return shown


def _decoded(blocks: Iterator[bytes], path: Path, encoding: str) -> Iterator[str]:
    """The text of a file, block by block.

    Raises:
        FileFormatError: bytes of another encoding; says which, where, and on which line.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    place, line, begun = 0, 1, False
    for block in itertools.chain(blocks, [b""]):
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            where, bad = place - len(pending) + error.start, (pending + block)[error.start]
            line += (pending + block)[: error.start].count(b"\n")
            raise FileFormatError(
                f"corpus: {path} must be {encoding.upper()}, got byte 0x{bad:02x} at offset {where} (line {line}): "
                f"{error.reason}; name its encoding (--encoding cp1252), or convert it"
            ) from None
        place, line = place + len(block), line + text.count("\n")
        yield text if begun else text.removeprefix("\ufeff")
        begun = begun or bool(text)


def _cut(blocks: Iterator[str]) -> Iterator[str]:
    """Join blocks to documents of at most `LONGEST` characters, cut at a blank line, line or space if there is one."""
    held = ""
    for block in blocks:
        held += block
        while len(held) > LONGEST:
            ends = (held.rfind(mark, 1, LONGEST) for mark in ("\n\n", "\n", " "))
            end = next((place for place in ends if place > 0), LONGEST)
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _lines(blocks: Iterator[str], path: Path, field: str) -> Iterator[str]:
    """The documents of a file of JSON lines.

    Raises:
        FileFormatError: a line that is not JSON; ParameterError: one without the field.
    """
    held, number = "", 0
    for block in itertools.chain(blocks, ["\n"]):
        *lines, held = (held + block).split("\n")
        for line in lines:
            number += 1
            if not line.strip():
                continue
            try:
                document = json.loads(line)
            except json.JSONDecodeError as error:
                raise FileFormatError(
                    f"corpus: {path} must hold JSON on each line, got line {number}: {error}"
                ) from None
            yield from _cut(iter([_text_of(document, field, f"line {number} of {path}")]))


def _text_of(document: Any, field: str, where: str) -> str:
    """The text of a document.

    Raises:
        ParameterError: neither text nor a mapping with text in its field.
    """
    text = document.get(field) if isinstance(document, Mapping) else document
    if not isinstance(text, str):
        held = ", ".join(map(str, document)) if isinstance(document, Mapping) else type(document).__name__
        raise ParameterError("corpus", where, f"text, or hold text in field {field!r}", held, "name the field")
    return text
