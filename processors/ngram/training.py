"""Training of a table on more text than fits into memory, chunk by chunk, with resumption after an interruption.

Each chunk of tokens is counted separately, and the counts are saved if a folder is given for them. At the end the
counts are added. Saved counts are reused only for the same settings and the same text, which a hash identifies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.ngram import counting
from logitkit.processors.ngram.corpus import Corpus, Documents, TextFiles
from logitkit.processors.ngram.counting import Ids, Level
from logitkit.processors.ngram.nltk_corpus import NltkCorpus
from logitkit.processors.ngram.smoothing import Smoothing
from logitkit.processors.ngram.table import NgramTable, check_orders
from logitkit.processors.ngram.vocabulary import TableVocabulary

CHUNK = 4_000_000  # tokens counted at once; sorting them takes about 300 MB
BATCH = 1 << 21  # characters tokenized at once


def train(
    texts: Iterable[Any],
    tokenizer: Any,
    *,
    orders: int = 3,
    smoothing: str = "modified-kneser-ney",
    strength: float | None = None,
    chunk: int = CHUNK,
    resume: str | Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> NgramTable:
    """Tokenize and count texts.

    Args:
        texts: strings, or mappings with the field ``text``; or `TextFiles`; or `NltkCorpus`; or
            `Documents`, for another field.
        tokenizer: a fast tokenizer of transformers; no special tokens are added.
        orders: longest n-gram, 1 to 5.
        smoothing: method of `Smoothing`.
        strength: strength of the smoothing; None: its default.
        chunk: number of tokens counted at once.
        resume: a folder for the counts of finished chunks. It remains after an interruption, and a later call with the
            same folder continues from these counts. None: no counts are saved.
        advance: called after each batch with the number of its tokens.

    Raises:
        ParameterError: orders or smoothing out of range, or no token in any text.
        FileFormatError: the folder contains counts of other settings or of other texts.

    Example:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> train(["the first text", "the second"], tiny_tokenizer(), orders=2).tokens
        24
    """
    check_orders(orders)
    vocabulary = TableVocabulary.of(tokenizer)
    outcomes = vocabulary.size - len(vocabulary.special)
    method = Smoothing(name=smoothing, strength=strength, outcomes=outcomes)  # type: ignore[arg-type]
    corpus: Corpus = texts if isinstance(texts, (TextFiles, Documents, NltkCorpus)) else Documents(texts)
    settings = {"orders": orders, "fingerprint": vocabulary.fingerprint, "size": vocabulary.size, "chunk": chunk}
    partial = PartialCounts(resume, settings)
    excluded = np.asarray(vocabulary.special, dtype=np.int64)
    for piece in _chunks(corpus, tokenizer, partial, advance):
        ids = counting.join_documents(piece.ids, base=vocabulary.size, excluded=excluded)
        partial.add(counting.count(ids, orders=orders, base=vocabulary.size), piece.documents, piece.digest)
    table = NgramTable(partial.total(), smoothing=method, sources=corpus.sources, **vocabulary._asdict())
    if not table.tokens:
        raise ParameterError("train", "texts", "at least one token that is not special", "none", "check the corpus")
    return table


class PartialCounts:
    """The counts of the chunks of a corpus, in memory, and also in a folder if one is given.

    Args:
        folder: the folder for the counts; None: memory only.
        settings: everything that the counts depend on, apart from the texts.

    Attributes:
        documents: number of documents that have been counted.
        digest: SHA-256 of their text.

    Raises:
        FileFormatError: the folder contains counts of other settings.
    """

    def __init__(self, folder: str | Path | None, settings: dict[str, Any]) -> None:
        self.folder, self.settings = Path(folder) if folder else None, settings
        self.documents, self.digest = 0, ""
        self._parts: list[list[Level]] = []
        for path in sorted(self.folder.glob("part-*.safetensors")) if self.folder else ():
            table = NgramTable.load(path)
            metadata = table.sources[0]
            if metadata["settings"] != settings:
                raise FileFormatError(
                    f"training: {self.folder} must contain counts of these settings ({json.dumps(settings)}), got "
                    f"{json.dumps(metadata['settings'])}; remove the folder to start again"
                )
            self.documents, self.digest = metadata["documents"], metadata["sha256"]
            self._append(list(table.levels))

    def add(self, levels: list[Level], documents: int, digest: str) -> None:
        """Add the counts of a chunk.

        Args:
            levels: the counts.
            documents: number of documents up to the end of the chunk.
            digest: SHA-256 of their text.
        """
        if self.folder is not None:
            source = {"name": "part", "settings": self.settings, "documents": documents, "sha256": digest}
            table = NgramTable(levels, size=self.settings["size"], sources=[source])
            table.save(self.folder / f"part-{documents:012d}.safetensors")
        self._append(levels)

    def _append(self, levels: list[Level]) -> None:
        """Append counts and merge parts of similar size, which copies each count a logarithmic number of times."""
        part = [Level(*(np.asarray(array, dtype=np.int64) for array in vars(level).values())) for level in levels]
        while self._parts and _size(self._parts[-1]) < 2 * _size(part):
            part = counting.merge([self._parts.pop(), part], base=self.settings["size"])
        self._parts.append(part)

    def total(self) -> list[Level]:
        """Return the sum of all counts; levels without n-grams if nothing was counted."""
        base = self.settings["size"]
        empty = counting.count(np.zeros(0, dtype=np.int64), orders=self.settings["orders"], base=base)
        return counting.merge(self._parts or [empty], base=base)

    def check_same_documents(self, number: int, digest: str) -> None:
        """Compare the counted documents with the corpus.

        Args:
            number: number of documents of the corpus read so far, at most `documents`.
            digest: SHA-256 of their text.

        Raises:
            FileFormatError: the counted documents differ from the first documents of the corpus.
        """
        if number == self.documents and digest != self.digest:
            raise FileFormatError(
                f"training: {self.folder} must contain the counts of this corpus, but its first {number} documents "
                "have changed; remove the folder to start again"
            )

    def check_enough_documents(self, number: int) -> None:
        """Compare the number of counted documents with the size of the corpus.

        Raises:
            FileFormatError: the corpus has only ``number`` documents, fewer than were counted.
        """
        if number < self.documents:
            raise FileFormatError(
                f"training: {self.folder} must contain the counts of this corpus, but has counts of {self.documents} "
                f"documents and the corpus has {number}; remove the folder to start again"
            )


def _size(levels: list[Level]) -> int:
    """Return the number of n-grams of all orders."""
    return sum(len(level) for level in levels)


class _Chunk(NamedTuple):
    """Documents to count at once.

    Attributes:
        documents: number of documents of the corpus up to the end of the chunk.
        digest: SHA-256 of their text.
        ids: token ids of the documents in the chunk.
    """

    documents: int
    digest: str
    ids: list[Ids]


class _TokenBuffer:
    """Collects texts and tokenizes them in batches.

    Attributes:
        tokens: number of collected token ids.
    """

    def __init__(self, tokenizer: Any, advance: Callable[[int], None] | None) -> None:
        self.tokenizer, self.advance, self.tokens = tokenizer, advance, 0
        self._texts: list[str] = []
        self._characters = 0
        self._ids: list[Ids] = []

    def add(self, text: str) -> bool:
        """Add a text; return whether the batch was full and has been tokenized."""
        self._texts.append(text)
        self._characters += len(text)
        if self._characters < BATCH:
            return False
        self.tokenize()
        return True

    def tokenize(self) -> None:
        """Tokenize the texts of the batch."""
        if self._texts:
            settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
            batch = self.tokenizer(self._texts, **settings)["input_ids"]
            self._ids.extend(np.asarray(document, dtype=np.int64) for document in batch)
            read = sum(map(len, batch))
            self.tokens += read
            self._texts.clear()
            if self.advance is not None:
                self.advance(read)
        self._characters = 0

    def take(self) -> list[Ids]:
        """Return the collected documents and start an empty collection."""
        ids, self._ids, self.tokens = self._ids, [], 0
        return ids


def _chunks(
    corpus: Corpus, tokenizer: Any, partial: PartialCounts, advance: Callable[[int], None] | None
) -> Iterator[_Chunk]:
    """Yield the chunks of a corpus that have not been counted yet.

    Raises:
        FileFormatError: the counted documents differ from the corpus.
    """
    digest, number, buffer = hashlib.sha256(), 0, _TokenBuffer(tokenizer, advance)
    for number, text in enumerate(corpus, 1):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        if number <= partial.documents:
            partial.check_same_documents(number, digest.hexdigest())
        elif buffer.add(text) and buffer.tokens >= partial.settings["chunk"]:
            yield _Chunk(number, digest.hexdigest(), buffer.take())
    partial.check_enough_documents(number)
    buffer.tokenize()
    if ids := buffer.take():
        yield _Chunk(number, digest.hexdigest(), ids)
