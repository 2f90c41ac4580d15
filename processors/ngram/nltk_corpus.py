"""Texts that the corpus readers of nltk read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from logitkit.errors import DataError, ParameterError
from logitkit.processors.ngram.corpus import split_long


class NltkCorpus:
    """The texts of an nltk corpus; each file of the corpus is one document.

    Args:
        corpus: a corpus reader of nltk, or the name of a corpus, such as ``gutenberg``.
        fileids: the files to read, by the ids of the reader; None reads all.

    Attributes:
        bytes: always None, since the size of the texts is not known before they are read.
        read: number of UTF-8 bytes read so far.

    Raises:
        ParameterError: nltk has no corpus of this name, or the corpus has no such file or no raw text.
        DataError: the corpus is not downloaded.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import nltk
        >>> from nltk.corpus import PlaintextCorpusReader
        >>> folder = tempfile.mkdtemp()
        >>> nltk.data.path.append(folder)  # nltk reads no other folders
        >>> _ = Path(folder, "a.txt").write_text("a text")
        >>> list(NltkCorpus(PlaintextCorpusReader(folder, ".*")))
        ['a text']
    """

    def __init__(self, corpus: Any, fileids: Sequence[str] | None = None) -> None:
        self.name = corpus if isinstance(corpus, str) else type(corpus).__name__
        self.reader, self.sources, self.read, self.bytes = _reader(corpus), list[dict[str, Any]](), 0, None
        try:
            known = list(self.reader.fileids())
        except LookupError as error:
            raise DataError(
                f"corpus: nltk corpus {self.name} must be downloaded, got none in {_places()}; "
                f"run: python -m nltk.downloader {self.name}"
            ) from error
        self.fileids = known if fileids is None else list(fileids)
        unknown = [name for name in self.fileids if name not in known]
        if unknown:
            some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
            raise ParameterError("corpus", "fileid", f"one of {some}", unknown[0], f"nltk corpus {self.name}")
        if not hasattr(self.reader, "raw"):
            raise ParameterError("corpus", "nltk corpus", "one with raw text", self.name)

    def __iter__(self) -> Iterator[str]:
        self.sources, self.read = [], 0
        for name in self.fileids:
            text = str(self.reader.raw(name))
            data = text.encode("utf-8", "surrogatepass")
            self.read += len(data)
            yield from split_long(iter([text]))
            self.sources.append(
                {"name": f"nltk:{self.name}/{name}", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            )


def _reader(corpus: Any) -> Any:
    """Return the reader of an nltk corpus given by name, or the reader that is given.

    Raises:
        ParameterError: nltk has no corpus of this name.
    """
    if not isinstance(corpus, str):
        return corpus
    import nltk.corpus

    reader = None if corpus.startswith("_") else getattr(nltk.corpus, corpus, None)
    lazy = type(reader).__name__ == "LazyCorpusLoader"  # any attribute of it would load the corpus
    if isinstance(reader, type) or not (lazy or hasattr(reader, "fileids")):
        raise ParameterError("corpus", "nltk corpus", "the name of a corpus in nltk.corpus, such as gutenberg", corpus)
    return reader


def _places() -> str:
    """Return the first folders in which nltk looks for data."""
    import nltk.data

    return ", ".join(nltk.data.path[:2])
