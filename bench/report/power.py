"""Power: how many items a difference needs, and which difference a number of items shows.

Power is the probability that the report shows a true difference, in its direction. The tests are those of
`logitkit.bench.report.statistics`, at the level that a comparison has after correction:

=====================  ==============================================================================================
values                 power
=====================  ==============================================================================================
right or wrong         exact: the number of items on which two strategies differ is binomial, and so is the number of
                       them that one strategy gains; McNemar's exact test rejects or not (Connor, Biometrics 43, 1987)
numbers, such as loss  that of the paired t-test (noncentral t), which the test by sign flips approaches; an
                       approximation, good for differences that are not extremely skewed
=====================  ==============================================================================================

With several comparisons, the level of each is 0.05 divided by their number. Holm's correction rejects at this level
whatever the other comparisons show, so the power is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from logitkit.bench.report.intervals import LEVEL, is_binary, proportion_interval
from logitkit.bench.report.packages import stats
from logitkit.bench.report.statistics import FINE_RESAMPLES
from logitkit.errors import ParameterError

MOST_ITEMS = 10**7  # `items_needed` searches no further
TAIL = 7.0  # standard deviations of a binomial number beyond which its probability, below 1e-10, is left out


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How much the paired answers of two strategies vary; exactly one of the two attributes is given.

    Attributes:
        discordant: share of the items on which one strategy is right and the other is wrong, in (0, 1].
        deviation: standard deviation of the paired differences, > 0, in the unit of the metric.

    Raises:
        ParameterError: both or none are given, or a value is outside its range.

    Examples:
        >>> spread = Spread(discordant=0.2)
        >>> f"{spread.power(500, 0.05):.3f}", spread.items_needed(0.05, power=0.8)
        ('0.676', 658)
        >>> Spread(deviation=1.0).items_needed(0.5, power=0.8)
        34
    """

    discordant: float | None = None
    deviation: float | None = None

    def __post_init__(self) -> None:
        """Check the two values."""
        given = [value for value in (self.discordant, self.deviation) if value is not None]
        if len(given) != 1:
            raise ParameterError("power", "discordant and deviation", "one of the two", f"{len(given)} of them")
        if self.discordant is not None and not 0 < self.discordant <= 1:
            raise ParameterError("power", "discordant", "a share > 0 and <= 1", self.discordant)
        if self.deviation is not None and not 0 < self.deviation < math.inf:
            raise ParameterError("power", "deviation", "a finite number > 0", self.deviation)

    def power(self, items: int, difference: float, *, comparisons: int = 1) -> float:
        """Return the probability that a true difference is shown.

        Args:
            items: number of items, from 1 to `MOST_ITEMS`.
            difference: absolute difference of the two means, >= 0; of shares at most ``discordant``.
            comparisons: number of comparisons that the report corrects for together, at least 1.

        Raises:
            ParameterError: the difference is impossible, or the number of items is out of range.
        """
        self.check(difference)
        if not 1 <= items <= MOST_ITEMS:
            raise ParameterError("power", "items", f"a whole number >= 1 and <= {MOST_ITEMS}", items)
        level = LEVEL / comparisons
        if self.discordant is not None:
            return _power_of_mcnemar(items, difference, self.discordant, level)
        assert self.deviation is not None
        return _power_of_means(items, difference / self.deviation, level)

    def items_needed(self, difference: float, *, power: float, comparisons: int = 1) -> int | None:
        """Return the smallest number of items with this power, None above `MOST_ITEMS`.

        Power rises with the items, of McNemar's test in small steps that may fall back by a fraction of a percent;
        the result is a number with the power whose predecessor lacks it.

        Raises:
            ParameterError: the difference is 0 or impossible, or the power is not between 0.05 and 1.
        """
        _check_power(power)
        if difference <= 0:
            raise ParameterError("power", "difference", "a finite number > 0", difference)
        self.check(difference)
        low, high = 0, 1  # the lower number lacks the power
        while self.power(high, difference, comparisons=comparisons) < power:
            if high >= MOST_ITEMS:
                return None
            low, high = high, min(2 * high, MOST_ITEMS)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if self.power(middle, difference, comparisons=comparisons) >= power else (middle, high)
            )
        return high

    def smallest_difference(self, items: int, *, power: float, comparisons: int = 1) -> float | None:
        """Return the smallest difference that this number of items shows with a power, None if there is none.

        Shares may have none, because a difference is at most the discordant share.

        Raises:
            ParameterError: the power is not between 0.05 and 1.
        """
        _check_power(power)
        low, high = 0.0, self.discordant or 0.0
        if self.deviation is not None:
            high = self.deviation
            while self.power(items, high, comparisons=comparisons) < power:
                high *= 2
                if high > 1e6 * self.deviation:
                    return None
        if self.power(items, high, comparisons=comparisons) < power:
            return None
        for _ in range(30):  # each round halves the uncertainty
            middle = (low + high) / 2
            low, high = (low, middle) if self.power(items, middle, comparisons=comparisons) >= power else (middle, high)
        return high

    def check(self, difference: float) -> None:
        """Refuse a difference that this spread makes impossible.

        Raises:
            ParameterError: the difference is negative, not finite, or above the discordant share.
        """
        if not 0 <= difference < math.inf:
            raise ParameterError("power", "difference", "a finite number >= 0", difference)
        if self.discordant is not None and difference > self.discordant + 1e-12:
            rule = f"at most the share of items on which the strategies differ, {self.discordant:g}"
            raise ParameterError("power", "difference", rule, difference)


def _check_power(power: float) -> None:
    """Refuse a power outside its range."""
    if not LEVEL < power < 1:
        raise ParameterError("power", "power", f"a number > {LEVEL} and < 1", power)


def _power_of_mcnemar(items: int, difference: float, discordant: float, level: float) -> float:
    """Return the probability that McNemar's exact test rejects, and that the true winner is ahead."""
    mean, deviation = items * discordant, math.sqrt(items * discordant * (1 - discordant))
    first = max(0, math.floor(mean - TAIL * deviation - TAIL**2))
    differing = np.arange(first, min(items, math.ceil(mean + TAIL * deviation + TAIL**2)) + 1)
    # The largest number of losses at which the test rejects: twice their probability under 1/2 is below the level.
    losses = stats.binom.ppf(level / 2, differing, 0.5) - 1
    lost = min(1.0, max(0.0, (discordant - difference) / (2 * discordant)))  # share of the differing items
    rejected = stats.binom.cdf(losses, differing, lost)
    return float(np.sum(stats.binom.pmf(differing, items, discordant) * np.nan_to_num(rejected)))


def _power_of_means(items: int, effect: float, level: float) -> float:
    """Return the power of the paired t-test for an effect, the difference in standard deviations."""
    if items < 2 or smallest_p(items) >= level:
        return 0.0
    critical = stats.t.isf(level / 2, items - 1)
    return float(np.nan_to_num(stats.nct.sf(critical, items - 1, effect * math.sqrt(items)), nan=1.0))


def smallest_p(items: int) -> float:
    """Return the smallest p-value of the test by sign flips: all signs are alike, and both directions count.

    Examples:
        >>> smallest_p(5), smallest_p(1000)
        (0.0625, 2e-05)
    """
    return max(2.0 ** (1 - items), 1 / (FINE_RESAMPLES + 1))


def pilot_spread(base: Sequence[float], other: Sequence[float]) -> tuple[Spread, Spread]:
    """Return the spread of a pilot, and a cautious one: the upper end of its 95 % interval.

    The interval of a discordant share is Wilson's. That of a standard deviation is the chi-squared interval, which
    assumes normal differences; for others it is a heuristic. Values that are all 0 or 1 have a discordant share.

    Args:
        base, other: values of the two strategies on the same items, at least two.

    Raises:
        ParameterError: fewer than two items, or differences that do not vary.

    Examples:
        >>> pilot, cautious = pilot_spread([0, 0, 1, 1], [1, 0, 1, 1])
        >>> pilot.discordant, round(cautious.discordant, 3)
        (0.25, 0.699)
    """
    differences = np.asarray(other, float) - np.asarray(base, float)
    count, binary = len(differences), is_binary(base) and is_binary(other)
    if count < 2 or (not binary and np.ptp(differences) == 0):
        raise ParameterError("power", "the pilot", "two items or more with different differences", f"{count} items")
    if binary:
        share = proportion_interval(float(np.count_nonzero(differences)), count)
        # Without an item that differs, the pilot gives a bound alone.
        return Spread(discordant=share.mean or share.high), Spread(discordant=share.high)
    deviation = float(np.std(differences, ddof=1))
    factor = math.sqrt((count - 1) / stats.chi2.ppf(LEVEL / 2, count - 1))
    return Spread(deviation=deviation), Spread(deviation=deviation * factor)


def discordant_shares(accuracy: float, other: float) -> tuple[float, float]:
    """Return the smallest discordant share of two accuracies, and that of independent answers.

    Strategies on one model are right on much the same items, so their share lies between the two.

    Examples:
        >>> smallest, independent = discordant_shares(0.5, 0.75)
        >>> smallest, independent
        (0.25, 0.5)
    """
    return abs(accuracy - other), accuracy * (1 - other) + other * (1 - accuracy)
