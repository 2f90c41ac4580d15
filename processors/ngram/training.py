"""Training a table on more text than fits in memory: chunk by chunk, and on where it was interrupted.

Every chunk of tokens is counted on its own; its table is a *run*, kept on disk when a folder is given for it.
At the end runs are added up. What was counted is fixed by the settings and the hash of the text so far, so a
run is used again only where both are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.ngram import counting
from logitkit.processors.ngram.corpus import Corpus, Files, Texts
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.smoothing import Smoothing
from logitkit.processors.ngram.table import NgramTable, check_orders, of_tokenizer

CHUNK = 4_000_000  # tokens counted at once: about 300 MB while they are sorted
BATCH = 1 << 21  # characters tokenized at once


def train(
    texts: Iterable[Any],
    tokenizer: Any,
    *,
    orders: int = 3,
    smoothing: str = "kneser-ney",
    strength: float | None = None,
    chunk: int = CHUNK,
    resume: str | Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> NgramTable:
    """Tokenize and count texts.

    Args:
        texts: documents, as strings or mappings with a ``text``; or `Files`, or `Texts` with another field.
        tokenizer: a fast tokenizer of transformers; it adds no special tokens here.
        orders: longest n-gram, 1 to 5.
        smoothing, strength: see `logitkit.processors.ngram.smoothing.Smoothing`.
        chunk: tokens counted at once.
        resume: a folder for what has been counted so far; left behind when interrupted, and used the next time.
        advance: called with the number of tokens read since the last call.

    Raises:
        ParameterError: orders or smoothing out of range, or no token in any text.
        FileFormatError: what the folder holds was counted otherwise, or of other texts.
    """
    check_orders(orders)
    known = of_tokenizer(tokenizer)
    chosen = Smoothing(name=smoothing, strength=strength, outcomes=known["size"] - len(known["special"]))  # type: ignore[arg-type]
    corpus: Corpus = texts if isinstance(texts, (Files, Texts)) else Texts(texts)
    runs = Runs(resume, {"orders": orders, "fingerprint": known["fingerprint"], "size": known["size"], "chunk": chunk})
    for documents, digest, ids in _chunks(corpus, tokenizer, chunk, runs, advance):
        stream = counting.stream(ids, base=known["size"], banned=np.asarray(known["special"], dtype=np.int64))
        runs.add(counting.count(stream, orders=orders, base=known["size"]), documents, digest)
    table = NgramTable(runs.total(), smoothing=chosen, sources=corpus.sources, **known)
    if not table.tokens:
        raise ParameterError("train", "texts", "at least one token that is not special", "none", "check the corpus")
    return table


class Runs:
    """The tables of chunks: in memory, or in a folder that outlives an interruption.

    Args:
        folder: where they are kept; None: in memory.
        settings: what they depend on.

    Raises:
        FileFormatError: the folder holds runs of other settings.
    """

    def __init__(self, folder: str | Path | None, settings: dict[str, Any]) -> None:
        self.folder, self.settings = Path(folder) if folder else None, settings
        self.documents, self.digest = 0, ""
        self._sizes: list[tuple[int, list[Level]]] = []
        for place in sorted(self.folder.glob("run-*.safetensors")) if self.folder else ():
            table = NgramTable.load(place)
            about = table.sources[0]
            if about["settings"] != settings:
                raise FileFormatError(
                    f"training: {self.folder} must hold what these settings counted ({json.dumps(settings)}), got "
                    f"{json.dumps(about['settings'])}; remove the folder to begin anew"
                )
            self.documents, self.digest = about["documents"], about["sha256"]
            self._keep(list(table.levels))

    def add(self, levels: list[Level], documents: int, digest: str) -> None:
        """Keep the table of a chunk that ends after so many documents of this hash."""
        if self.folder is not None:
            about = {"name": "run", "settings": self.settings, "documents": documents, "sha256": digest}
            table = NgramTable(levels, size=self.settings["size"], sources=[about])
            table.save(self.folder / f"run-{documents:012d}.safetensors")
        self._keep(levels)

    def _keep(self, levels: list[Level]) -> None:
        """Add up runs of about one size, so that each count is moved a few times only."""
        plain = [Level(*(np.asarray(part, dtype=np.int64) for part in vars(level).values())) for level in levels]
        size = sum(len(level) for level in plain)
        while self._sizes and self._sizes[-1][0] < 2 * size:
            _, earlier = self._sizes.pop()
            plain = counting.merge([earlier, plain], base=self.settings["size"])
            size = sum(len(level) for level in plain)
        self._sizes.append((size, plain))

    def total(self) -> list[Level]:
        """Everything added up; a table without n-grams where nothing was counted."""
        none = counting.count(np.zeros(0, dtype=np.int64), orders=self.settings["orders"], base=self.settings["size"])
        return counting.merge([*(levels for _, levels in self._sizes)] or [none], base=self.settings["size"])


def _chunks(
    corpus: Corpus, tokenizer: Any, chunk: int, runs: Runs, advance: Callable[[int], None] | None
) -> Iterator[tuple[int, str, list[Any]]]:
    """Read on after what the runs hold: number of documents, hash of their text, and ids of the new ones.

    Raises:
        FileFormatError: the text that the runs counted is another one now.
    """
    digest, number, counted = hashlib.sha256(), 0, 0
    texts: list[str] = []
    ids: list[Any] = []

    def tokenize() -> None:
        nonlocal counted
        if texts:
            new = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
            ids.extend(np.asarray(document, dtype=np.int64) for document in new)
            read = sum(map(len, new))
            counted += read
            texts.clear()
            if advance is not None:
                advance(read)

    held = 0
    for number, text in enumerate(corpus, 1):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        if number <= runs.documents:
            if number == runs.documents and digest.hexdigest() != runs.digest:
                raise FileFormatError(
                    f"training: {runs.folder} must hold the counts of this corpus, but its first {number} documents "
                    "are others now; remove the folder to begin anew"
                )
            continue
        texts.append(text)
        held += len(text)
        if held >= BATCH:
            tokenize()
            held = 0
            if counted >= chunk:
                yield number, digest.hexdigest(), ids
                counted = 0
                ids.clear()
    if number < runs.documents:
        raise FileFormatError(
            f"training: {runs.folder} must hold the counts of this corpus, but counted {runs.documents} documents "
            f"where there are {number} now; remove the folder to begin anew"
        )
    tokenize()
    if ids:
        yield number, digest.hexdigest(), ids
