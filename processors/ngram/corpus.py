"""Texts to count: files, folders and iterables of documents, read piece by piece and hashed at the same time."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from logitkit.errors import FileFormatError, ParameterError
from logitkit.files import check_readable, parse_json
from logitkit.params import is_valid_unicode

LONGEST = 1 << 22  # characters of one document; a longer text is split at a blank line
BLOCK = 1 << 20  # bytes read at once


class Corpus(Protocol):
    """An iterable of documents.

    Attributes:
        sources: the texts that the documents came from, as ``{"name", "sha256", ...}``; complete after the iteration.
    """

    sources: list[dict[str, Any]]

    def __iter__(self) -> Iterator[str]: ...


class Documents:
    """Documents in memory or from an iterator.

    Args:
        documents: strings, or mappings that contain the text in a field, such as the rows of a data set. The iterable
            is read once and piece by piece.
        field: the field of a mapping that contains its text.

    Raises:
        ParameterError: the documents are a single string. During the iteration: an element without text.

    Example:
        >>> list(Documents([{"body": "first"}, "second"], field="body"))
        ['first', 'second']
    """

    def __init__(self, documents: Iterable[str | Mapping[str, Any]], *, field: str = "text") -> None:
        if isinstance(documents, str):
            raise ParameterError("train", "texts", "an iterable of documents", documents[:40], "put the text in a list")
        self.documents, self.field, self.sources = documents, field, list[dict[str, Any]]()

    def __iter__(self) -> Iterator[str]:
        digest, number = hashlib.sha256(), 0
        for number, document in enumerate(self.documents, 1):
            text = _text_of(document, self.field, f"document {number}")
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            yield from split_long(iter([text]))
        self.sources = [{"name": "stream", "documents": number, "sha256": digest.hexdigest()}]


class TextFiles:
    r"""Documents in files: a text file is one document, and each line of a ``.jsonl`` file is one.

    Files that end in ``.gz`` are decompressed. A text of more than 4 million characters is split at blank lines, and no
    n-gram crosses a split.

    Args:
        paths: files and folders. A folder is searched recursively, without hidden files.
        field: the field of a line of JSON that contains its text.
        encoding: encoding of all files.

    Attributes:
        bytes: total size of the files, in bytes.
        read: number of these bytes read so far, for a progress bar.

    Raises:
        ParameterError: a path that does not exist, a folder without files, or an unknown encoding. During the
            iteration: a line of JSON without the field.
        FileFormatError: during the iteration: bytes of another encoding, damaged gzip, a file that cannot be read,
            or a line that is not JSON.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.jsonl").write_text('{"text": "first"}\n{"text": "second"}\n')
        >>> list(TextFiles([folder]))
        ['first', 'second']
    """

    def __init__(self, paths: Iterable[str | Path], *, field: str = "text", encoding: str = "utf-8") -> None:
        self.field, self.encoding, self.sources, self.read = field, encoding, list[dict[str, Any]](), 0
        _check_encoding(encoding)
        self.files = [file for path in paths for file in _files_at(Path(path))]
        self.bytes = sum(file.path.stat().st_size for file in self.files)

    def __iter__(self) -> Iterator[str]:
        self.sources, self.read = [], 0
        for name, path in self.files:
            digest = hashlib.sha256()
            blocks = _decoded(self._blocks(path, digest), path, self.encoding)
            yield from _json_lines(blocks, path, self.field) if ".jsonl" in path.suffixes else split_long(blocks)
            self.sources.append({"name": name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()})

    def _blocks(self, path: Path, digest: Any) -> Iterator[bytes]:
        """Yield the decompressed bytes of a file block by block, and update the digest and the progress."""
        read_before = self.read
        try:
            with path.open("rb") as raw:
                source: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
                while block := source.read(BLOCK):
                    digest.update(block)
                    self.read = read_before + raw.tell()
                    yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FileFormatError(f"corpus: {path} must be a whole gzip file, got: {error}") from error
        except OSError as error:
            raise FileFormatError(f"corpus: {path} must be a file that can be read, got: {error.strerror}") from error


def _check_encoding(encoding: str) -> None:
    """Refuse encodings that Python does not know, and codecs such as base64 that decode to no text.

    Raises:
        ParameterError: names the encoding.
    """
    try:
        codecs.getincrementaldecoder(encoding)
        known = getattr(codecs.lookup(encoding), "_is_text_encoding", True)
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ParameterError("corpus", "encoding", "a text encoding known to Python, such as utf-8", encoding)


class _NamedFile(NamedTuple):
    """A file, and its name in the sources of a table: the path relative to the searched folder."""

    name: str
    path: Path


def _files_at(path: Path) -> list[_NamedFile]:
    """Return the file at a path, or the files in the folder at a path.

    Raises:
        ParameterError: neither exists, or the folder has no files.
    """
    try:
        check_readable(path)
        return [_NamedFile(path.name, path)]
    except IsADirectoryError:
        pass
    except OSError as error:
        raise ParameterError(
            "corpus", "path", "a file or folder that exists", str(path), error.strerror or ""
        ) from error
    relative = [(file.relative_to(path), file) for file in sorted(path.rglob("*")) if file.is_file()]
    files = [
        _NamedFile(str(name), file) for name, file in relative if not any(part.startswith(".") for part in name.parts)
    ]
    if not files:
        raise ParameterError("corpus", "path", "a folder with files", str(path))
    return files


def _decoded(blocks: Iterator[bytes], path: Path, encoding: str) -> Iterator[str]:
    """Yield the text of a file block by block, without a byte order mark.

    Raises:
        FileFormatError: bytes of another encoding, with their offset and line, or lone surrogates.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line, started = 0, 1, False
    for block in itertools.chain(blocks, [b""]):
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            bad_offset, bad_byte = offset - len(pending) + error.start, (pending + block)[error.start]
            line += (pending + block)[: error.start].count(b"\n")
            raise FileFormatError(
                f"corpus: {path} must be {encoding.upper()}, got byte 0x{bad_byte:02x} at offset {bad_offset} "
                f"(line {line}): {error.reason}; name its encoding (--encoding cp1252), or convert it"
            ) from None
        except ValueError as error:  # some decoders raise no UnicodeDecodeError, such as UTF-16 without a mark
            raise FileFormatError(f"corpus: {path} must be {encoding.upper()}, got: {error}") from None
        if not is_valid_unicode(text):  # UTF-7 and unicode_escape can spell lone surrogates
            raise FileFormatError(f"corpus: {path} must be valid Unicode, got a lone surrogate; remove it")
        offset, line = offset + len(block), line + text.count("\n")
        yield text if started else text.removeprefix("\ufeff")
        started = started or bool(text)


def split_long(blocks: Iterator[str]) -> Iterator[str]:
    """Join blocks to documents of at most `LONGEST` characters.

    A longer text is split at a blank line, else at a line break, else at a space, else after `LONGEST` characters.

    Example:
        >>> list(split_long(iter(["a text ", "in blocks"])))
        ['a text in blocks']
    """
    text = ""
    for block in blocks:
        text += block
        while len(text) > LONGEST:
            ends = (text.rfind(mark, 1, LONGEST) for mark in ("\n\n", "\n", " "))
            end = next((end for end in ends if end > 0), LONGEST)
            yield text[:end]
            text = text[end:]
    if text:
        yield text


def _json_lines(blocks: Iterator[str], path: Path, field: str) -> Iterator[str]:
    """Yield the documents of a file of JSON lines; empty lines are skipped.

    Raises:
        FileFormatError: a line that is not JSON.
        ParameterError: a line without the field.
    """
    unfinished, number = "", 0
    for block in itertools.chain(blocks, ["\n"]):
        *lines, unfinished = (unfinished + block).split("\n")
        for line in lines:
            number += 1
            if not line.strip():
                continue
            try:
                document = parse_json(line)
            except ValueError as error:
                raise FileFormatError(
                    f"corpus: {path} must contain JSON on each line, got line {number}: {error}"
                ) from None
            yield from split_long(iter([_text_of(document, field, f"line {number} of {path}")]))


def _text_of(document: Any, field: str, where: str) -> str:
    """Return the text of a document.

    Raises:
        ParameterError: neither a string nor a mapping with a string in the field, or text with a lone surrogate.
    """
    text = document.get(field) if isinstance(document, Mapping) else document
    if not isinstance(text, str):
        content = ", ".join(map(str, document)) if isinstance(document, Mapping) else type(document).__name__
        raise ParameterError("corpus", where, f"text, or contain text in field {field!r}", content, "name the field")
    if not is_valid_unicode(text):  # JSON can write lone surrogates, and tokenizers refuse them
        raise ParameterError("corpus", where, "valid Unicode", text[:60], "remove the lone surrogates")
    return text
