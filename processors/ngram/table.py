"""Tables of n-grams over a tokenizer's ids: counted, smoothed, saved, and looked up for a whole batch at once.

Look-ups are those of `logitkit.processors.ngram.index`, probabilities those of `logitkit.processors.ngram.smoothing`.
A table is a safetensors file: loading maps it into memory and runs no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError
from logitkit.processors.ngram import counting
from logitkit.processors.ngram import file as ngram_file
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.index import NONE, NgramIndex
from logitkit.processors.ngram.smoothing import Backoff, Smoothing, smooth
from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_ORDERS = 5


class NgramTable(NgramIndex):
    """N-grams of orders 1 to n, and how often each occurs.

    Args:
        levels: one for each order, as `counting.count` makes them; a level without counts has ``counts=None``.
        size: number of ids of the tokenizer.
        base: one more than the largest id in the keys; more than ``size`` where words outside the tokenizer count.
        special: ids that no n-gram holds, and that no processor may boost or penalise.
        smoothing: how probabilities are made of counts.
        fingerprint: of the tokenizer; None when the ids are from none.
        sources: what was counted, as ``{"name", "sha256", ...}``.
        backoff: the model itself, where it was imported without counts.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        size: int,
        base: int | None = None,
        special: Sequence[int] = (),
        smoothing: Smoothing | None = None,
        fingerprint: str | None = None,
        sources: Sequence[dict[str, Any]] = (),
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(levels, size=size, base=size if base is None else base, special=special)
        self.smoothing = smoothing or Smoothing(outcomes=max(size - len(self.special), 1))
        self.fingerprint, self.sources, self._imported = fingerprint, list(sources), backoff

    @classmethod
    def count(
        cls,
        documents: Sequence[Any],
        *,
        size: int,
        orders: int = 3,
        special: Sequence[int] = (),
        smoothing: str = "kneser-ney",
        strength: float | None = None,
        fingerprint: str | None = None,
    ) -> NgramTable:
        """Count documents that are in memory as token ids.

        No n-gram crosses from one document to the next, or holds an id that is special or outside ``size``.

        Args:
            documents: sequences of ids.
            size: number of ids.
            orders: longest n-gram, 1 to 5.
            smoothing, strength: see `Smoothing`.

        Raises:
            ParameterError: orders out of range, or nothing to count.
        """
        check_orders(orders)
        ids = counting.stream(documents, base=size, banned=np.asarray(sorted(special), dtype=np.int64))
        if not (ids >= 0).any():
            raise ParameterError("NgramTable", "documents", "at least one token that is not special", "none")
        chosen = Smoothing(name=smoothing, strength=strength, outcomes=max(size - len(special), 1))  # type: ignore[arg-type]
        levels = counting.count(ids, orders=orders, base=size)
        return cls(levels, size=size, special=special, smoothing=chosen, fingerprint=fingerprint)

    @classmethod
    def train(cls, texts: Iterable[str], tokenizer: Any, **settings: Any) -> NgramTable:
        """Tokenize and count a stream of texts, however long; see `logitkit.processors.ngram.training.train`."""
        from logitkit.processors.ngram.training import train

        return train(texts, tokenizer, **settings)

    @classmethod
    def from_nltk(cls, model: Any, tokenizer: Any, *, words: Literal["tokens", "ids"] = "tokens") -> NgramTable:
        """Import a fitted `nltk.lm` model; see `logitkit.processors.ngram.importers.from_nltk`."""
        from logitkit.processors.ngram.importers import from_nltk

        return from_nltk(model, tokenizer, words=words)

    @classmethod
    def from_arpa(cls, path: str | Path, tokenizer: Any, *, words: Literal["tokens", "ids"] = "tokens") -> NgramTable:
        """Read an ARPA file, as KenLM and SRILM write them; see `logitkit.processors.ngram.importers.from_arpa`."""
        from logitkit.processors.ngram.importers import from_arpa

        return from_arpa(path, tokenizer, words=words)

    @classmethod
    def load(cls, path: str | Path) -> NgramTable:
        """Map a saved table into memory.

        Raises:
            FileFormatError: no such file, truncated, foreign, or of another version.
        """
        return cls(**ngram_file.read(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write the table to a safetensors file, whole or not at all."""
        ngram_file.write(Path(path), self)

    @property
    def counted(self) -> bool:
        """Whether there are counts; an ARPA file has none."""
        return self._imported is None

    @property
    def tokens(self) -> int:
        """How many tokens were counted."""
        return int(self.levels[0].counts.sum()) if self.counted else 0

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(level):,}" for level in self.levels)
        how = repr(self.smoothing) if self.counted else "imported"
        return f"NgramTable({sizes} n-grams of orders 1 to {self.orders}, {how})"

    def smoothed(self, name: str, strength: float | None = None) -> NgramTable:
        """Return the same counts under another smoothing.

        Raises:
            ModelError: an imported model has no counts.
        """
        if not self.counted:
            raise ModelError("NgramTable: smoothing must be that of the imported model, it has no counts")
        chosen = Smoothing(name=name, strength=strength, outcomes=self.smoothing.outcomes)  # type: ignore[arg-type]
        return self._with(self.levels, smoothing=chosen)

    def to(self, device: Any) -> NgramTable:
        """Return the table with its arrays on a device (itself where they are there)."""
        if self.levels[0].keys.device == torch.device(device):
            return self
        moved = [Level(*(None if part is None else part.to(device) for part in vars(v).values())) for v in self.levels]
        return self._with(moved, smoothing=self.smoothing, backoff=self.backoff)

    def _with(self, levels: Any, *, smoothing: Smoothing, backoff: Backoff | None = None) -> NgramTable:
        copy = NgramTable(
            levels,
            size=self.size,
            base=self.base,
            special=self.special.tolist(),
            smoothing=smoothing,
            fingerprint=self.fingerprint,
            sources=self.sources,
            backoff=self._imported,
        )
        if backoff is not None:
            copy.backoff = backoff
        return copy

    def check_tokenizer(self, tokenizer: Any, owner: str) -> None:
        """Refuse a tokenizer that this table was not counted with.

        Raises:
            ModelError: another tokenizer, or a table of ids that are from none.
        """
        if self.fingerprint != fingerprint(tokenizer):
            raise ModelError(
                f"{owner}: table must be trained with the generating model's tokenizer ({fingerprint(tokenizer)}), "
                f"got one of {self.fingerprint or 'no tokenizer'}; run logitkit train-ngram with this tokenizer"
            )

    @cached_property
    def backoff(self) -> Backoff:
        """The probabilities, made of the counts when first asked for; on the device of the table."""
        if self._imported is not None:
            made = self._imported
        else:
            arrays = [Level(v.keys.cpu().numpy(), v.counts.cpu().numpy(), v.starts.cpu().numpy()) for v in self.levels]
            made = smooth(arrays, [suffix.cpu().numpy() for suffix in self.suffixes], self.smoothing)
        device = self.levels[0].keys.device
        parts = [[torch.as_tensor(part).to(device) for part in every] for every in (made.probability, made.rest)]
        return Backoff(parts[0], parts[1], made.unknown, made.flat, made.floor)

    def probability(self, ids: Tensor, tokens: Tensor, *, order: int | None = None) -> Tensor:
        """Return the probability of one next token for each row, as ``nltk.lm`` scores it.

        Args:
            ids: what comes before, ``[rows, length]``.
            tokens: ``[rows]``.
            order: of the model; None: the table's.

        Returns:
            probabilities, ``[rows]`` float64; 0 for what the smoothing holds impossible.
        """
        contexts, order = self.contexts(ids), self.orders if order is None else order
        made = self.backoff
        result = torch.full(
            tokens.shape, made.unknown if made.flat else made.floor, dtype=torch.float64, device=tokens.device
        )
        for level in range(1, order + 1):
            context = contexts[:, level - 1]
            entry = self.find(level, context, tokens)
            rest = _at(made.rest[level - 1], context, made.unknown)
            here = _at(made.probability[level - 1], entry, rest if made.flat else rest * result)
            result = torch.where(context == NONE, result, here)
        return result


def of_tokenizer(tokenizer: Any, model_size: int | None = None) -> dict[str, Any]:
    """What a table needs to know of a tokenizer: size, special ids and fingerprint."""
    vocabulary = Vocabulary.of(tokenizer, model_size)
    special = set(vocabulary.special) | {int(number) for number in tokenizer.all_special_ids}
    return {"size": len(vocabulary), "special": sorted(special), "fingerprint": fingerprint(tokenizer)}


def check_orders(orders: int) -> None:
    """Refuse orders out of range."""
    if isinstance(orders, bool) or not isinstance(orders, int) or not 1 <= orders <= MOST_ORDERS:
        raise ParameterError("NgramTable", "orders", f"a whole number from 1 to {MOST_ORDERS}", orders)


def _at(values: Tensor, places: Tensor, otherwise: Any) -> Tensor:
    """The values at these places, and something else where a place is below zero."""
    if not len(values):
        return otherwise if isinstance(otherwise, Tensor) else torch.full_like(places, otherwise, dtype=torch.float64)
    return torch.where(places >= 0, values[places.clamp(min=0)], otherwise)
