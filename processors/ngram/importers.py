"""Tables made elsewhere: fitted `nltk.lm` models with their counts, and ARPA files with their probabilities."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from logitkit.errors import FileFormatError, ModelError
from logitkit.processors.ngram.counting import Ids, Level, row_starts
from logitkit.processors.ngram.smoothing import Backoff, Smoothing
from logitkit.processors.ngram.table import NgramTable, check_orders, of_tokenizer

Words = Literal["tokens", "ids"]
MARKS = ("<s>", "</s>", "<UNK>", "<unk>")  # words that may stand for no token: padding and the unknown word


class Lexicon:
    """Words of another model as token ids; its marks get ids beyond the tokenizer, so that they count but never match.

    Args:
        tokenizer: of the generating model.
        words: whether words are tokens as the tokenizer spells them, or ids in decimal.
        owner: named in errors.
    """

    def __init__(self, tokenizer: Any, words: Words, owner: str) -> None:
        self.about, self.owner, self.words = of_tokenizer(tokenizer), owner, words
        self._ids = {mark: self.about["size"] + place for place, mark in enumerate(MARKS)}
        special = set(self.about["special"])
        known = tokenizer.get_vocab().items()
        self._ids |= {
            token if words == "tokens" else str(number): number for token, number in known if number not in special
        }

    @property
    def base(self) -> int:
        """One more than the largest id."""
        return int(self.about["size"]) + len(MARKS)

    def __call__(self, word: Any) -> int:
        """Return the id of a word.

        Raises:
            ModelError: no token is spelled so.
        """
        if word not in self._ids:
            kind = "token of the tokenizer" if self.words == "tokens" else "token id in decimal"
            raise ModelError(
                f"{self.owner}: every word must be a {kind}, got {word!r}; "
                "fit it on tokenizer.convert_ids_to_tokens(ids)"
                + (", or pass words='ids'" if self.words == "tokens" else "")
            )
        return int(self._ids[word])


def from_nltk(model: Any, tokenizer: Any, *, words: Words = "tokens") -> NgramTable:
    """Import a fitted `nltk.lm` model; probabilities of tokens are those of ``model.score``.

    Padding and the unknown word count as nltk counts them, but are never suggested. A token outside the model's
    vocabulary is unseen here, where nltk takes it for its unknown word.

    Args:
        model: MLE, Lidstone, Laplace, StupidBackoff, or interpolated Witten-Bell, absolute discounting, Kneser-Ney.
        tokenizer: a fast tokenizer of transformers.
        words: whether its words are tokens as the tokenizer spells them, or ids in decimal.

    Raises:
        ModelError: another kind of model, one that is not fitted, or a word that is no token.
        ParameterError: orders out of range.
    """
    check_orders(model.order)
    smoothing = _smoothing_of(model)
    lexicon = Lexicon(tokenizer, words, "from_nltk")
    grams: list[Ids] = []
    counts: list[Any] = []
    for order in range(1, model.order + 1):
        held = list(_counts_of(model, order))
        grams.append(
            np.array([[lexicon(word) for word in gram] for gram, _ in held], dtype=np.int64).reshape(-1, order)
        )
        counts.append(np.array([count for _, count in held], dtype=np.int64))
    if not len(grams[0]):
        raise ModelError("from_nltk: model must be fitted, got one without counts; call model.fit(...)")
    levels: list[Level] = []
    for (keys, place), amount in zip(arrange(grams, lexicon.base), counts, strict=True):
        full = np.zeros(len(keys), dtype=np.int64)
        full[place] = amount
        levels.append(Level(keys, full, row_starts(keys, lexicon.base, len(levels[-1]) if levels else 1)))
    sources = [{"name": f"nltk.lm {type(model).__name__}"}]
    return NgramTable(levels, base=lexicon.base, smoothing=smoothing, sources=sources, **lexicon.about)


def _counts_of(model: Any, order: int) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The n-grams of one order with their counts."""
    if order == 1:
        yield from (((word,), count) for word, count in model.counts.unigrams.items() if count > 0)
        return
    for context, following in model.counts[order].items():
        yield from (((*context, word), count) for word, count in following.items() if count > 0)


def _smoothing_of(model: Any) -> Smoothing:
    """The smoothing of an nltk model.

    Raises:
        ModelError: one whose score is its own.
    """
    from nltk.lm import models, smoothing

    scores = type(model).unmasked_score
    outcomes = max(len(model.vocab), 1)
    if scores is models.MLE.unmasked_score:
        return Smoothing(name="mle", outcomes=outcomes)
    if scores is models.Lidstone.unmasked_score:
        return Smoothing(name="add-k", strength=float(model.gamma), outcomes=outcomes)
    if scores is models.StupidBackoff.unmasked_score:
        return Smoothing(name="stupid-backoff", strength=float(model.alpha), outcomes=outcomes)
    if scores is models.InterpolatedLanguageModel.unmasked_score:
        estimator = type(model.estimator)
        if estimator is smoothing.WittenBell:
            return Smoothing(name="witten-bell", outcomes=outcomes)
        if estimator is smoothing.AbsoluteDiscounting:
            return Smoothing(name="absolute-discounting", strength=float(model.estimator.discount), outcomes=outcomes)
        if estimator is smoothing.KneserNey:
            return Smoothing(name="kneser-ney", strength=float(model.estimator.discount), outcomes=outcomes)
    raise ModelError(
        f"from_nltk: model must be of a class of nltk.lm with its own score, got {type(model).__name__}; "
        "count its text with NgramTable.train"
    )


def arrange(grams: Sequence[Ids], base: int) -> list[tuple[Ids, NDArray[np.int64]]]:
    """Sort n-grams into levels; missing beginnings and ends of n-grams become entries of their own.

    Args:
        grams: for each order the different n-grams, ``[entries, order]``, in any order.
        base: one more than the largest id.

    Returns:
        for each order the keys of its level, and the entry of every n-gram given.
    """
    complete = list(grams)
    for order in range(len(grams) - 1, 0, -1):
        longer = complete[order]
        complete[order - 1] = np.concatenate([complete[order - 1], longer[:, :-1], longer[:, 1:]])
    levels: list[tuple[Ids, NDArray[np.int64]]] = []

    def entries(gram: Ids) -> Ids:
        """The entries of n-grams whose level has been made."""
        found = np.zeros(len(gram), dtype=np.int64)
        for column, (keys, _) in enumerate(levels[: gram.shape[1]]):
            found = np.searchsorted(keys, found * base + gram[:, column])
        return found

    for order, gram in enumerate(grams, 1):
        parents = entries(complete[order - 1][:, :-1])
        keys = np.unique(parents * base + complete[order - 1][:, -1])
        levels.append((keys, np.searchsorted(keys, (parents * base + complete[order - 1][:, -1])[: len(gram)])))
    return levels


def from_arpa(path: str | Path, tokenizer: Any, *, words: Words = "tokens") -> NgramTable:
    """Read an ARPA file (``.gz`` too) whose words are tokens, as KenLM writes it from tokenized text.

    It holds probabilities and no counts: ``lift`` then compares with what a token would have had, had it not been
    seen after its context.

    Args:
        path: the file.
        tokenizer: a fast tokenizer of transformers.
        words: whether its words are tokens as the tokenizer spells them, or ids in decimal.

    Raises:
        FileFormatError: no ARPA file, or one cut short; says on which line.
        ModelError: a word that is no token.
        ParameterError: orders out of range.
    """
    path, lexicon = Path(path), Lexicon(tokenizer, words, "from_arpa")
    if not path.is_file():
        raise FileFormatError(f"ARPA: {path} must be a file")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        try:
            grams, numbers = _parse(path, lines, lexicon)
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise FileFormatError(f"ARPA: {path} must be UTF-8 text, whole, got: {error}") from error
    check_orders(len(grams))
    arranged = arrange(grams, lexicon.base)
    levels: list[Level] = []
    probability: list[Any] = []
    rest: list[Any] = [np.ones(1)]
    for (keys, place), pairs in zip(arranged, numbers, strict=True):
        levels.append(Level(keys, None, row_starts(keys, lexicon.base, len(levels[-1].keys) if levels else 1)))
        probability.append(np.full(len(keys), np.nan))
        probability[-1][place] = 10.0 ** pairs[:, 0]
        rest.append(np.ones(len(keys)))
        rest[-1][place] = 10.0 ** pairs[:, 1]
    unknown = lexicon("<unk>")
    at = np.flatnonzero(levels[0].keys == unknown)
    floor = float(probability[0][at[0]]) if len(at) else 0.0
    made = Backoff(
        [torch.from_numpy(p) for p in probability], [torch.from_numpy(r) for r in rest[:-1]], 1.0, False, floor
    )
    table = NgramTable(levels, base=lexicon.base, sources=[{"name": path.name}], backoff=made, **lexicon.about)
    for order, values in enumerate(probability, 1):  # what the file leaves out backs off
        gaps = np.isnan(values)
        lower = probability[order - 2][table.suffixes[order - 2].numpy()] if order > 1 else np.full(len(values), floor)
        values[gaps] = (rest[order - 1][levels[order - 1].keys // lexicon.base] * lower)[gaps]
    return table


def _parse(path: Path, lines: Iterable[str], lexicon: Lexicon) -> tuple[list[Ids], list[NDArray[np.float64]]]:
    """The n-grams of each order, and for each its log10 probability and log10 backoff weight."""
    announced: dict[int, int] = {}
    grams: list[list[list[int]]] = []
    numbers: list[list[tuple[float, float]]] = []
    state, number = "", 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        try:
            if not text:
                continue
            if text.startswith("\\"):
                state = text
                if text.endswith("-grams:"):
                    if int(text[1:-7]) != len(grams) + 1:
                        raise ValueError(f"order {len(grams) + 1} must come next")
                    grams.append([])
                    numbers.append([])
                elif text == "\\end\\":
                    break
            elif state == "\\data\\":
                order, _, count = text.removeprefix("ngram ").partition("=")
                announced[int(order)] = int(count)
            elif grams:
                first, *rest = text.split()
                held, weight = rest[: len(grams)], rest[len(grams) :]
                if len(held) != len(grams) or len(weight) > 1:
                    raise ValueError(f"a probability, {len(grams)} words and perhaps a weight must stand here")
                grams[-1].append([lexicon(word) for word in held])
                numbers[-1].append((float(first), float(weight[0]) if weight else 0.0))
        except ValueError as error:
            if isinstance(error, ModelError):
                raise
            raise FileFormatError(
                f"ARPA: {path} must hold n-grams, got line {number}: {text[:60]!r} ({error})"
            ) from error
    counts = {order: len(held) for order, held in enumerate(grams, 1)}
    if state != "\\end\\" or not grams or counts != announced:
        raise FileFormatError(
            f"ARPA: {path} must hold the n-grams that it announces ({announced}) and \\end\\, got {counts} "
            f"up to line {number}"
        )
    arrays = [np.array(held, dtype=np.int64).reshape(-1, order) for order, held in enumerate(grams, 1)]
    return arrays, [np.array(held, dtype=np.float64).reshape(-1, 2) for held in numbers]
