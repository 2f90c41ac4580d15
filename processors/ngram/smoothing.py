"""Smoothing of n-gram counts, as `nltk.lm` defines it, in the form of a backoff model.

A backoff model has one probability for each n-gram that occurs and one weight for each context:

    P(t | c) = probability[c t]                               where the n-gram c t occurs
    P(t | c) = weight[c] * P(t | c without its first token)   elsewhere; the weight is 1 where c itself does not occur

An interpolated model takes this form once ``alpha + gamma * lower`` is computed for every n-gram that occurs. Add-k
and maximum likelihood do not use shorter contexts. For them the weight is itself the probability of a token that was
not seen. Probabilities are float64 and not logarithms.

Sources: Chen and Goodman 1998 for the interpolated models, Brants et al. 2007 for stupid backoff, whose scores do not
sum to 1. All are computed as in nltk 3.10. Departure: nltk divides by zero for Kneser-Ney contexts that occur only at
the beginning of documents. Here the lower order is used instead, and the relative frequency for order 1. As in nltk,
Kneser-Ney sums to more than 1 after contexts that occur both at the beginning of a document and elsewhere.

Modified Kneser-Ney, the default, is that of Chen and Goodman as KenLM computes it (Heafield et al. 2013): three
discounts for each order, estimated from the counts, and single tokens interpolated with the uniform distribution. It
sums to 1 after every context. The beginning of a document counts as one more preceding token. Departure: KenLM also has
n-grams that contain the beginning or the end of a document, which enter its discounts; tables hold none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from logitkit.errors import ParameterError
from logitkit.params import checked, number, option, whole
from logitkit.processors.ngram.counting import Level

SmoothingName = Literal[
    "add-k", "witten-bell", "kneser-ney", "modified-kneser-ney", "absolute-discounting", "stupid-backoff", "mle"
]
SMOOTHING_NAMES: tuple[str, ...] = get_args(SmoothingName)
Floats = NDArray[np.float64]
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # of KenLM, where too few different counts occur to estimate discounts
DEFAULT_STRENGTH: dict[str, float] = {
    "add-k": 1e-3,
    "kneser-ney": 0.75,
    "absolute-discounting": 0.75,
    "stupid-backoff": 0.4,
}


class Smoothing:
    """The smoothing method of a table and its strength.

    Args:
        name: one of the seven methods.
        strength: add-k: the pseudo-count, above 0. Kneser-Ney and absolute discounting: the discount, 0 to 1. Stupid
            backoff: the factor of a shorter context, >= 0. The other methods have none. None: the default.
        outcomes: number of tokens that share the pseudo-counts of add-k, and the uniform part of modified Kneser-Ney.

    Raises:
        ParameterError: an unknown method, or a strength outside its range.

    Example:
        >>> Smoothing(name="add-k"), Smoothing(name="witten-bell")
        (add-k(0.001), witten-bell)
    """

    @checked
    def __init__(
        self,
        *,
        name: Annotated[SmoothingName, option("smoothing method")] = "modified-kneser-ney",
        strength: Annotated[float | None, number("pseudo-count, discount or backoff factor", ge=0)] = None,
        outcomes: Annotated[int, whole("tokens that share pseudo-counts", ge=1)] = 1,
    ) -> None:
        if name not in DEFAULT_STRENGTH and strength is not None:
            raise ParameterError("Smoothing", "strength", f"None for {name}, which has no strength", strength)
        if name in ("kneser-ney", "absolute-discounting") and strength is not None and strength > 1:
            raise ParameterError("Smoothing", "strength", "a discount of 0 to 1", strength)
        if name == "add-k" and strength is not None and strength <= 0:
            raise ParameterError("Smoothing", "strength", "a pseudo-count > 0", strength)
        self.name: SmoothingName = name
        self.strength = DEFAULT_STRENGTH.get(name, 0.0) if strength is None else float(strength)
        self.outcomes = outcomes

    def as_data(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain data, for the metadata of a file."""
        strength = self.strength if self.name in DEFAULT_STRENGTH else None
        return {"name": self.name, "strength": strength, "outcomes": self.outcomes}

    def __repr__(self) -> str:
        return f"{self.name}({self.strength:g})" if self.name in DEFAULT_STRENGTH else str(self.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class BackoffModel:
    """A smoothed n-gram model.

    Attributes:
        probability: for each order the probability of every entry, ``[entries]`` float64.
        weight: for each order the weight of every context, ``[contexts]`` float64.
        unseen_weight: the weight of a context that does not occur.
        backs_off: whether a weight multiplies the probability under a shorter context. If False, ``weight`` and
            ``unseen_weight`` are themselves probabilities.
        floor: probability of a token that does not occur at all, before any weight.
    """

    probability: Sequence[Any]
    weight: Sequence[Any]
    unseen_weight: float
    backs_off: bool
    floor: float = 0.0


def smooth(levels: Sequence[Level], suffixes: Sequence[Any], smoothing: Smoothing) -> BackoffModel:
    """Compute the backoff model of counts.

    Args:
        levels: counts, orders 1 to n.
        suffixes: for each order from 2, the entry of every n-gram without its first token, one order lower; -1 where
            that n-gram does not occur.
        smoothing: the method.
    """
    backs_off = smoothing.name not in ("add-k", "mle")
    modified = smoothing.name == "modified-kneser-ney"
    floor = 1 / smoothing.outcomes if modified else 0.0
    probability: list[Floats] = []
    weight: list[Floats] = []
    for order, level in enumerate(levels, 1):
        starts = np.asarray(level.starts)
        alpha, gamma = _interpolation(levels, suffixes, order, smoothing)
        if order == 1 and modified:
            alpha = alpha + np.repeat(gamma, np.diff(starts)) * floor
        elif order == 1 and backs_off:
            gamma = np.zeros_like(gamma)
        if order > 1 and backs_off:
            suffix = np.asarray(suffixes[order - 2])
            lower = np.where(suffix >= 0, probability[-1][np.maximum(suffix, 0)], 0.0) if len(suffix) else np.zeros(0)
            backed_off = np.repeat(gamma, np.diff(starts)) * lower
            if smoothing.name == "stupid-backoff":
                # An imported model may have the count 0 for an n-gram of which only longer ones occur.
                alpha = np.where(np.asarray(level.counts) > 0, alpha, backed_off)
            else:
                alpha = alpha + backed_off
        probability.append(alpha)
        weight.append(gamma)
    special_cases = {"add-k": 1 / smoothing.outcomes, "mle": 0.0, "stupid-backoff": smoothing.strength}
    return BackoffModel(
        probability=tuple(probability),
        weight=tuple(weight),
        unseen_weight=special_cases.get(smoothing.name, 1.0),
        backs_off=backs_off,
        floor=floor,
    )


def _interpolation(
    levels: Sequence[Level], suffixes: Sequence[Any], order: int, smoothing: Smoothing
) -> tuple[Floats, Floats]:
    """Return alpha of every entry and gamma of every context of one order, as nltk names and defines them."""
    level, name, k = levels[order - 1], smoothing.name, smoothing.strength
    starts = np.asarray(level.starts)
    counts = np.asarray(level.counts, dtype=np.float64)
    if name == "modified-kneser-ney":
        return _modified_kneser_ney(levels, suffixes, order)
    if name == "kneser-ney" and order < len(levels):
        counts = _continuation_counts(levels, suffixes, order)
    totals = _sums_by_context(counts, starts)
    # The number of different followers, which Kneser-Ney too takes from the plain counts.
    kinds = _sums_by_context((np.asarray(level.counts) > 0).astype(np.float64), starts)

    def share(amounts: Floats, sums: Floats) -> Floats:
        return amounts / np.maximum(np.repeat(sums, np.diff(starts)), np.finfo(float).tiny)

    if name == "add-k":
        mass = totals + k * smoothing.outcomes
        return share(counts + k, mass), k / mass
    if name == "mle" or name == "stupid-backoff" or order == 1:
        return share(counts, totals), np.full(len(totals), k if name == "stupid-backoff" else 0.0)
    if name == "witten-bell":
        gamma = _ratio(kinds, kinds + totals)
        return (1 - np.repeat(gamma, np.diff(starts))) * share(counts, totals), gamma
    return share(np.maximum(counts - k, 0), totals), _ratio(k * kinds, totals)


def _modified_kneser_ney(levels: Sequence[Level], suffixes: Sequence[Any], order: int) -> tuple[Floats, Floats]:
    """Return alpha of every entry and gamma of every context of one order under modified Kneser-Ney."""
    starts = np.asarray(levels[order - 1].starts)
    counts = np.asarray(levels[order - 1].counts, dtype=np.float64)
    if order < len(levels):
        counts = _preceding_tokens(levels, suffixes, order) + _begins_documents(levels, suffixes, order)
    discounts = np.asarray([0.0, *modified_discounts(counts)])[np.minimum(counts, 3).astype(np.int64)]
    totals = _sums_by_context(counts, starts)
    alpha = (counts - discounts) / np.maximum(np.repeat(totals, np.diff(starts)), np.finfo(float).tiny)
    return alpha, _ratio(_sums_by_context(discounts, starts), totals)


def modified_discounts(counts: Floats) -> tuple[float, float, float]:
    """Return the discounts of the counts 1, 2, and 3 or more, as Chen and Goodman estimate them.

    Args:
        counts: adjusted counts of all n-grams of one order. Where none is 1, 2 or 3, or an estimate is out of range,
            the discounts are `FALLBACK_DISCOUNTS`, as in KenLM.

    Example:
        >>> modified_discounts(np.array([1.0] * 8 + [2.0] * 4 + [3.0] * 2 + [4.0]))  # Y = 8 / 16
        (0.5, 1.25, 2.0)
    """
    n1, n2, n3, n4 = (int((counts == value).sum()) for value in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    discounts = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    in_range = all(0 <= discount <= most for most, discount in enumerate(discounts, 1))
    return discounts if in_range else FALLBACK_DISCOUNTS


def _preceding_tokens(levels: Sequence[Level], suffixes: Sequence[Any], order: int) -> Floats:
    """Return for each n-gram the number of different tokens that precede it, without the beginning of documents."""
    longer = np.where(np.asarray(levels[order].counts) > 0, np.asarray(suffixes[order - 1]), -1)
    return np.bincount(longer[longer >= 0], minlength=len(levels[order - 1])).astype(np.float64)


def _begins_documents(levels: Sequence[Level], suffixes: Sequence[Any], order: int) -> Floats:
    """Return for each n-gram 1 if it occurs where no token precedes it, else 0."""
    suffix, longer = np.asarray(suffixes[order - 1]), np.asarray(levels[order].counts, dtype=np.float64)
    known = suffix >= 0
    own = np.asarray(levels[order - 1].counts, dtype=np.float64)
    preceded = np.bincount(suffix[known], weights=longer[known], minlength=len(own))
    return (own > preceded).astype(np.float64)


def _continuation_counts(levels: Sequence[Level], suffixes: Sequence[Any], order: int) -> Floats:
    """Return for each n-gram the number of different tokens that precede it.

    Where no bigram exists at all, the counts themselves are returned, which give the relative frequency.
    """
    level = levels[order - 1]
    preceding = _preceding_tokens(levels, suffixes, order)
    starts = np.asarray(level.starts)
    no_bigram = np.repeat((_sums_by_context(preceding, starts) == 0) & (order == 1), np.diff(starts))
    return np.where(no_bigram, np.asarray(level.counts, dtype=np.float64), preceding)


def _sums_by_context(values: Floats, starts: Any) -> Floats:
    """Return the sum of the entries of each context; 0 for a context without entries."""
    cumulative: Floats = np.append(0.0, np.cumsum(values))  # exact for integers below 2^53
    return np.asarray(cumulative[starts[1:]] - cumulative[starts[:-1]])


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; 1 where the denominator is 0, which gives the whole mass to the lower order."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 1.0)
