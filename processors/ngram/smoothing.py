"""Smoothing of n-gram counts, as `nltk.lm` defines it, in backoff form.

Every model here is one probability for each n-gram that occurs and one number for each context:

    P(t | c) = probability[c t]                  where c t occurs
    P(t | c) = rest[c] * P(t | c without its first token)     elsewhere; rest = 1 where c itself never occurs

An interpolated model takes this form once ``alpha + gamma * lower`` is written out for what occurs. Add-k and
maximum likelihood do not look at shorter contexts (``flat``): there rest is itself the probability of a
token that was not seen. Probabilities are float64, not logarithms.

Sources: Chen and Goodman 1998 for the interpolated ones, Brants et al. 2007 for stupid backoff (a score that
does not sum to 1), all as nltk 3.10 computes them. One departure: where nltk divides by zero, in Kneser-Ney
contexts that occur at the beginning of documents only (and with a single order), the lower order, or the plain
frequency, stands.
As in nltk, Kneser-Ney sums to more than 1 after contexts that stand both there and elsewhere.
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

Name = Literal["add-k", "witten-bell", "kneser-ney", "absolute-discounting", "stupid-backoff", "mle"]
Floats = NDArray[np.float64]
STRENGTH: dict[str, float] = {"add-k": 1e-3, "kneser-ney": 0.75, "absolute-discounting": 0.75, "stupid-backoff": 0.4}


class Smoothing:
    """Which smoothing, and how strong.

    Args:
        name: one of the six.
        strength: add-k: the pseudo-count k > 0 (default 0.001); Kneser-Ney and absolute discounting: the
            discount, 0 to 1 (0.75); stupid backoff: the factor of a shorter context (0.4); the others have none.
        outcomes: how many tokens add-k shares its pseudo-counts among.
    """

    @checked
    def __init__(
        self,
        *,
        name: Annotated[Name, option("which smoothing")] = "kneser-ney",
        strength: Annotated[float | None, number("pseudo-count, discount or backoff factor", ge=0)] = None,
        outcomes: Annotated[int, whole("tokens that add-k shares its pseudo-counts among", ge=1)] = 1,
    ) -> None:
        if name not in STRENGTH and strength is not None:
            raise ParameterError("Smoothing", "strength", f"None for {name}, which has none", strength)
        if name in ("kneser-ney", "absolute-discounting") and strength is not None and strength > 1:
            raise ParameterError("Smoothing", "strength", "a discount of 0 to 1", strength)
        if name == "add-k" and strength is not None and strength <= 0:
            raise ParameterError("Smoothing", "strength", "a pseudo-count > 0", strength)
        self.name: Name = name
        self.strength = STRENGTH.get(name, 0.0) if strength is None else float(strength)
        self.outcomes = outcomes

    def as_data(self) -> dict[str, Any]:
        """Plain data, for a file's metadata."""
        strength = self.strength if self.name in STRENGTH else None
        return {"name": self.name, "strength": strength, "outcomes": self.outcomes}

    def __repr__(self) -> str:
        return f"{self.name}({self.strength:g})" if self.name in STRENGTH else str(self.name)


NAMES: tuple[str, ...] = get_args(Name)


@dataclass(frozen=True, eq=False)
class Backoff:
    """A smoothed model in backoff form.

    Attributes:
        probability: for each order the probability of every entry, ``[entries]`` float64.
        rest: for each order the number of every context, ``[contexts]`` float64.
        unknown: the number of a context that never occurs.
        flat: shorter contexts are not looked at, and ``rest`` and ``unknown`` are probabilities.
        floor: probability of a token that never occurs, before any ``rest``.
    """

    probability: Sequence[Any]
    rest: Sequence[Any]
    unknown: float
    flat: bool
    floor: float = 0.0


def smooth(levels: Sequence[Level], suffixes: Sequence[Any], smoothing: Smoothing) -> Backoff:
    """Smooth the counts of a table.

    Args:
        levels: counts, orders 1 to n.
        suffixes: for each order from 2 the entry, one order lower, of every n-gram without its first token; -1
            where that does not occur.
        smoothing: which, and how strong.
    """
    flat, k = smoothing.name in ("add-k", "mle"), smoothing.strength
    probability: list[Floats] = []
    rest: list[Floats] = []
    for order, level in enumerate(levels, 1):
        starts = np.asarray(level.starts)
        alpha, gamma = _interpolation(levels, suffixes, order, smoothing)
        if order == 1 and not flat:
            gamma = np.zeros_like(gamma)
        if order > 1 and not flat:
            at = np.asarray(suffixes[order - 2])
            lower = np.where(at >= 0, probability[-1][np.maximum(at, 0)], 0.0) if len(at) else np.zeros(0)
            backed = np.repeat(gamma, np.diff(starts)) * lower
            if smoothing.name == "stupid-backoff":  # an imported count may be 0, where only longer n-grams occur
                alpha = np.where(np.asarray(level.counts) > 0, alpha, backed)
            else:
                alpha = alpha + backed
        probability.append(alpha)
        rest.append(gamma)
    unknown = {"add-k": 1 / smoothing.outcomes, "mle": 0.0, "stupid-backoff": k}.get(smoothing.name, 1.0)
    return Backoff(tuple(probability), tuple(rest), unknown, flat)


def _interpolation(
    levels: Sequence[Level], suffixes: Sequence[Any], order: int, smoothing: Smoothing
) -> tuple[Floats, Floats]:
    """Alpha of every entry and gamma of every context of one order, in the words of nltk."""
    level, name, k = levels[order - 1], smoothing.name, smoothing.strength
    starts = np.asarray(level.starts)
    counts = np.asarray(level.counts, dtype=np.float64)
    totals, kinds = _row_sums(counts, starts), _row_sums((counts > 0).astype(np.float64), starts)
    if name == "kneser-ney" and order < len(levels):  # count the different tokens that stand before
        at = np.where(np.asarray(levels[order].counts) > 0, np.asarray(suffixes[order - 1]), -1)
        before = np.bincount(at[at >= 0], minlength=len(level)).astype(np.float64)
        befores = _row_sums(before, starts)
        lone = np.repeat((befores == 0) & (order == 1), np.diff(starts))  # no bigram at all: plain frequency
        counts = np.where(lone, counts, before)
        totals = _row_sums(counts, starts)

    def share(amounts: Floats, of: Floats) -> Floats:
        return amounts / np.maximum(np.repeat(of, np.diff(starts)), np.finfo(float).tiny)

    if name == "add-k":
        mass = totals + k * smoothing.outcomes
        return share(counts + k, mass), k / mass
    if name == "mle" or name == "stupid-backoff" or order == 1:
        return share(counts, totals), np.full(len(totals), k if name == "stupid-backoff" else 0.0)
    if name == "witten-bell":
        gamma = _ratio(kinds, kinds + totals)
        return (1 - np.repeat(gamma, np.diff(starts))) * share(counts, totals), gamma
    return share(np.maximum(counts - k, 0), totals), _ratio(k * kinds, totals)


def _row_sums(values: Floats, starts: Any) -> Floats:
    """Sum the entries of each context; 0 for a context without any."""
    before: Floats = np.append(0.0, np.cumsum(values))  # whole numbers below 2^53: exact
    return np.asarray(before[starts[1:]] - before[starts[:-1]])


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; 1 where below is 0: a context of which nothing is known leaves everything to the lower order."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), 1.0)
