"""Tables of n-grams over the ids of a tokenizer: counted, smoothed, saved, and looked up for a whole batch at once.

`logitkit.processors.ngram.index` looks n-grams up and `logitkit.processors.ngram.smoothing` computes probabilities. A
table is saved as a safetensors file. Loading maps the file into memory and runs no code from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError
from logitkit.processors.ngram import counting
from logitkit.processors.ngram import file as ngram_file
from logitkit.processors.ngram.counting import Level
from logitkit.processors.ngram.index import NO_CONTEXT, NgramIndex
from logitkit.processors.ngram.smoothing import BackoffModel, Smoothing, smooth
from logitkit.processors.tokens.vocabulary import fingerprint, fingerprints

MOST_ORDERS = 5


class NgramTable(NgramIndex):
    """N-grams of orders 1 to n with their counts.

    Use `count`, `train`, `from_nltk`, `from_arpa` or `load` to make a table.

    Args:
        levels: one for each order, as `counting.count` returns them; levels of an imported model have no counts.
        size: number of ids of the tokenizer.
        base: one more than the largest id in the keys. It exceeds ``size`` if words outside the tokenizer have counts.
        special: ids that no n-gram contains and that no processor raises or lowers.
        smoothing: the method that turns counts into probabilities.
        fingerprint: hash of the tokenizer's vocabulary; None if the ids come from no tokenizer.
        sources: the counted texts, each as ``{"name", "sha256", ...}``.
        backoff: the probabilities of a model that was imported without counts.

    Example:
        >>> import torch
        >>> table = NgramTable.count([[1, 2, 1, 2, 3], [2, 1]], size=5, orders=2, smoothing="mle")
        >>> table
        NgramTable(3, 3 n-grams of orders 1 to 2, mle)
        >>> table.probability(torch.tensor([[1]]), torch.tensor([2]))
        tensor([1.], dtype=torch.float64)
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
        backoff: BackoffModel | None = None,
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
        smoothing: str = "modified-kneser-ney",
        strength: float | None = None,
        fingerprint: str | None = None,
    ) -> NgramTable:
        """Count documents of token ids in memory.

        No n-gram crosses the end of a document or contains an id that is special or outside ``0 .. size - 1``.

        Args:
            documents: sequences of ids.
            size: number of ids of the tokenizer.
            orders: longest n-gram, 1 to 5.
            special: ids that no n-gram contains.
            smoothing: method of `Smoothing`.
            strength: strength of the smoothing; None: its default.
            fingerprint: hash of the tokenizer's vocabulary.

        Raises:
            ParameterError: orders out of range, or no token to count.
        """
        check_orders(orders)
        ids = counting.join_documents(documents, base=size, excluded=np.asarray(sorted(special), dtype=np.int64))
        if not (ids >= 0).any():
            raise ParameterError("NgramTable", "documents", "at least one token that is not special", "none")
        outcomes = max(size - len(special), 1)
        method = Smoothing(name=smoothing, strength=strength, outcomes=outcomes)  # type: ignore[arg-type]
        levels = counting.count(ids, orders=orders, base=size)
        return cls(levels, size=size, special=special, smoothing=method, fingerprint=fingerprint)

    @classmethod
    def train(
        cls,
        texts: Iterable[Any],
        tokenizer: Any,
        *,
        orders: int = 3,
        smoothing: str = "modified-kneser-ney",
        strength: float | None = None,
        chunk: int | None = None,
        resume: str | Path | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> NgramTable:
        """Tokenize and count texts of any total length; see `logitkit.processors.ngram.training.train`."""
        from logitkit.processors.ngram.training import CHUNK, train

        return train(
            texts,
            tokenizer,
            orders=orders,
            smoothing=smoothing,
            strength=strength,
            chunk=CHUNK if chunk is None else chunk,
            resume=resume,
            advance=advance,
        )

    @classmethod
    def from_nltk(cls, model: Any, tokenizer: Any, *, words: Literal["tokens", "ids"] = "tokens") -> NgramTable:
        """Import a fitted `nltk.lm` model; see `logitkit.processors.ngram.nltk_importer.from_nltk`."""
        from logitkit.processors.ngram.nltk_importer import from_nltk

        return from_nltk(model, tokenizer, words=words)

    @classmethod
    def from_arpa(cls, path: str | Path, tokenizer: Any, *, words: Literal["tokens", "ids"] = "tokens") -> NgramTable:
        """Read an ARPA file of KenLM or SRILM; see `logitkit.processors.ngram.arpa_importer.from_arpa`."""
        from logitkit.processors.ngram.arpa_importer import from_arpa

        return from_arpa(path, tokenizer, words=words)

    @classmethod
    def load(cls, path: str | Path) -> NgramTable:
        """Map a saved table into memory.

        Raises:
            FileFormatError: no such file, or a truncated file, another format, or another version.
        """
        return cls(**ngram_file.read(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write the table to a safetensors file and replace an existing file at once."""
        ngram_file.write(Path(path), self)

    @property
    def has_counts(self) -> bool:
        """Whether the table has counts; a table imported from an ARPA file has probabilities only."""
        return self._imported is None

    @property
    def tokens(self) -> int:
        """Number of counted tokens; 0 for a table without counts."""
        return int(self.levels[0].counts.sum()) if self.has_counts else 0

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(level):,}" for level in self.levels)
        method = repr(self.smoothing) if self.has_counts else "imported"
        return f"NgramTable({sizes} n-grams of orders 1 to {self.orders}, {method})"

    def smoothed(self, name: str, strength: float | None = None) -> NgramTable:
        """Return the same counts under another smoothing method.

        Args:
            name: method of `Smoothing`.
            strength: its strength; None: its default.

        Raises:
            ModelError: the table has no counts.
        """
        if not self.has_counts:
            raise ModelError("NgramTable: smoothing must be that of the imported model, which has no counts")
        method = Smoothing(name=name, strength=strength, outcomes=self.smoothing.outcomes)  # type: ignore[arg-type]
        return self._copy(self.levels, smoothing=method)

    def to(self, device: Any) -> NgramTable:
        """Return the table with its arrays on a device; the table itself if its arrays are on the device."""
        if self.levels[0].keys.device == torch.device(device):
            return self
        arrays = [(level.keys, level.counts, level.starts) for level in self.levels]
        moved = [Level(*(None if array is None else array.to(device) for array in level)) for level in arrays]
        return self._copy(moved, smoothing=self.smoothing, backoff=self.backoff)

    def _copy(
        self, levels: Sequence[Level], *, smoothing: Smoothing, backoff: BackoffModel | None = None
    ) -> NgramTable:
        """Return a copy with these levels; ``backoff`` contains the probabilities if they are known already."""
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
        """Refuse a tokenizer other than the table's own, or the table's own with further added tokens.

        Args:
            tokenizer: of the generating model.
            owner: name at the start of the error message.

        Raises:
            ModelError: another tokenizer, or a table whose ids come from no tokenizer.
        """
        if self.fingerprint not in fingerprints(tokenizer):
            raise ModelError(
                f"{owner}: table must be trained with the generating model's tokenizer ({fingerprint(tokenizer)}), "
                f"got a table of {self.fingerprint or 'no tokenizer'}; run logitkit train-ngram with this tokenizer"
            )

    @cached_property
    def backoff(self) -> BackoffModel:
        """The probabilities as a backoff model, computed on first use, on the device of the table."""
        if self._imported is not None:
            model = self._imported
        else:
            arrays = [Level(v.keys.cpu().numpy(), v.counts.cpu().numpy(), v.starts.cpu().numpy()) for v in self.levels]
            model = smooth(arrays, [suffix.cpu().numpy() for suffix in self.suffixes], self.smoothing)
        device = self.levels[0].keys.device
        return BackoffModel(
            probability=[torch.as_tensor(array).to(device) for array in model.probability],
            weight=[torch.as_tensor(array).to(device) for array in model.weight],
            unseen_weight=model.unseen_weight,
            backs_off=model.backs_off,
            floor=model.floor,
        )

    def probability(self, ids: Tensor, tokens: Tensor, *, order: int | None = None) -> Tensor:
        """Return the probability of one next token for each row, equal to the score of ``nltk.lm``.

        Args:
            ids: the tokens before, ``[rows, length]``.
            tokens: ``[rows]``.
            order: the longest n-gram to use; None: the longest of the table.

        Returns:
            probabilities, ``[rows]`` float64; 0 for a token that is impossible under the smoothing.
        """
        contexts, model = self.contexts(ids), self.backoff
        initial = model.floor if model.backs_off else model.unseen_weight
        result = torch.full(tokens.shape, initial, dtype=torch.float64, device=tokens.device)
        for level in range(1, (self.orders if order is None else order) + 1):
            context = contexts[:, level - 1]
            entry = self.find(level, context, tokens)
            weight = _value_at(model.weight[level - 1], context, model.unseen_weight)
            unseen = weight * result if model.backs_off else weight
            result = torch.where(context == NO_CONTEXT, result, _value_at(model.probability[level - 1], entry, unseen))
        return result


def check_orders(orders: int) -> None:
    """Refuse a longest n-gram outside 1 to 5.

    Raises:
        ParameterError: not a whole number in this range.

    Example:
        >>> check_orders(3)
    """
    if isinstance(orders, bool) or not isinstance(orders, int) or not 1 <= orders <= MOST_ORDERS:
        raise ParameterError("NgramTable", "orders", f"a whole number from 1 to {MOST_ORDERS}", orders)


def _value_at(values: Tensor, indices: Tensor, default: Any) -> Tensor:
    """Return the values at the indices, and the default at negative indices."""
    if not len(values):
        return default if isinstance(default, Tensor) else torch.full_like(indices, default, dtype=torch.float64)
    return torch.where(indices >= 0, values[indices.clamp(min=0)], default)
