"""Power: by hand, by enumeration, against statsmodels, and against simulated runs that the report judges."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.power import TTestPower

from logitkit.bench.report import Spread, compare, mcnemar
from logitkit.bench.report.intervals import paired_interval
from logitkit.bench.report.power import discordant_shares, pilot_spread, smallest_p
from logitkit.errors import ParameterError


def test_six_items_that_all_differ_by_hand() -> None:
    """Six gains of six have p = 2/64, six of six is the only result that shows, so the power is its probability."""
    spread = Spread(discordant=1.0)
    assert spread.power(6, 0.5) == pytest.approx(0.75**6) and spread.power(6, 1.0) == 1
    assert spread.power(5, 1.0) == 0  # 2/32 is above 0.05
    assert spread.items_needed(1.0, power=0.8) == 6
    assert spread.power(6, 1.0, comparisons=2) == 0 and spread.items_needed(1.0, power=0.8, comparisons=2) == 7


def enumerated(items: int, difference: float, discordant: float, level: float) -> float:
    """Return the power of McNemar's test of statsmodels over all numbers of gains and losses."""
    gain, loss = (discordant + difference) / 2, (discordant - difference) / 2
    total = 0.0
    for gained, lost in itertools.product(range(items + 1), repeat=2):
        if gained + lost <= items and gained > lost:
            p = mcnemar_of_statsmodels([[0, gained], [lost, 0]], exact=True).pvalue
            total += (p < level) * stats.multinomial.pmf(
                [gained, lost, items - gained - lost], items, [gain, loss, 1 - gain - loss]
            )
    return total


@pytest.mark.parametrize(("items", "difference", "discordant"), [(12, 0.3, 0.5), (18, 0.2, 0.2), (15, 0.0, 0.6)])
@pytest.mark.parametrize("comparisons", [1, 3])
def test_shares_by_enumeration(items: int, difference: float, discordant: float, comparisons: int) -> None:
    """The power equals the sum over all outcomes, with the test of statsmodels."""
    power = Spread(discordant=discordant).power(items, difference, comparisons=comparisons)
    assert power == pytest.approx(enumerated(items, difference, discordant, 0.05 / comparisons), abs=1e-9)


def test_shares_by_simulation() -> None:
    """Of 4000 simulated runs, the report shows the difference in as many as promised, within 4 standard errors."""
    rng, items, discordant, difference = np.random.default_rng(0), 200, 0.3, 0.1
    chances = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]

    @functools.cache
    def shown(gained: int, lost: int) -> bool:
        return mcnemar(gained, lost) < 0.05 and paired_interval(gained, lost, items).low > 0

    share = np.mean([shown(gained, lost) for gained, lost, _ in rng.multinomial(items, chances, 4000).tolist()])
    power = Spread(discordant=discordant).power(items, difference)
    assert abs(share - power) < 4 * math.sqrt(power * (1 - power) / 4000)


def test_the_interval_never_hides_what_the_exact_test_shows() -> None:
    """The report asks for both, and the power counts the test alone: wherever McNemar's test shows a difference,
    Tango's interval excludes 0."""
    for gained, lost in itertools.product(range(14), range(6)):
        if gained > lost and mcnemar(gained, lost) < 0.05:
            assert paired_interval(gained, lost, 30).low > 0


@pytest.mark.parametrize(("effect", "power", "comparisons"), [(0.5, 0.8, 1), (0.2, 0.9, 1), (0.3, 0.8, 5)])
def test_means_are_those_of_statsmodels(effect: float, power: float, comparisons: int) -> None:
    """The items of the paired t-test, rounded up, and the difference that they show."""
    want = TTestPower().solve_power(effect_size=effect, power=power, alpha=0.05 / comparisons)
    spread = Spread(deviation=2.0)
    items = spread.items_needed(2 * effect, power=power, comparisons=comparisons)
    assert items == math.ceil(want)
    least = TTestPower().solve_power(nobs=items, power=power, alpha=0.05 / comparisons)
    assert spread.smallest_difference(items, power=power, comparisons=comparisons) == pytest.approx(2 * least, rel=1e-4)


def test_means_by_simulation() -> None:
    """60 runs are simulated and judged as the report judges; the share that shows the difference is the power."""
    rng, items = np.random.default_rng(1), 25
    differences = rng.normal(0.6, 1.0, size=(60, items))
    found = [compare([0.0] * items, [row.tolist()])[0].conclusion("higher") == "better" for row in differences]
    power = Spread(deviation=1.0).power(items, 0.6)
    assert 0.7 < power < 0.9 and abs(np.mean(found) - power) < 3.5 * math.sqrt(power * (1 - power) / 60)


def test_few_items_show_nothing() -> None:
    """The signs of five items have at best p = 2/32; without a difference of that size there is none to name."""
    spread = Spread(deviation=1.0)
    assert smallest_p(5) == 2 / 32 and spread.power(5, 100.0) == 0 and spread.smallest_difference(5, power=0.8) is None
    assert Spread(discordant=0.01).smallest_difference(100, power=0.8) is None
    assert Spread(discordant=1e-9).items_needed(1e-9, power=0.8) is None


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 1), st.floats(0.1, 1), st.integers(1, 20), st.booleans())
def test_items_and_difference_are_inverse(size: float, part: float, comparisons: int, shares: bool) -> None:
    """The needed items have the power, one less has it not, and they show no more than the difference."""
    spread = Spread(discordant=size) if shares else Spread(deviation=size)
    difference = part * size
    items = spread.items_needed(difference, power=0.8, comparisons=comparisons)
    assert items is not None and spread.power(items, difference, comparisons=comparisons) >= 0.8
    assert spread.power(items - 1, difference, comparisons=comparisons) < 0.8 if items > 1 else True
    least = spread.smallest_difference(items, power=0.8, comparisons=comparisons)
    assert least is not None and least <= difference * (1 + 1e-6)


def test_a_pilot_by_hand() -> None:
    """The share of items that differ, or the standard deviation of the differences; the cautious value is larger."""
    pilot, cautious = pilot_spread([0, 0, 1, 1, 0], [1, 0, 0, 1, 0])
    assert pilot == Spread(discordant=0.4) and cautious.discordant == pytest.approx(0.769, abs=1e-3)
    pilot, cautious = pilot_spread([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert pilot == Spread(deviation=1.0) and cautious.deviation == pytest.approx(math.sqrt(2 / 0.0506), abs=0.01)
    pilot, cautious = pilot_spread([1, 0], [1, 0])  # no item differs: the bound alone is known
    assert pilot == cautious and pilot.discordant is not None and 0 < pilot.discordant < 1
    assert discordant_shares(0.5, 0.75) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spread(), "power: discordant and deviation must be one of the two, got '0 of them'"),
        (lambda: Spread(discordant=0.1, deviation=1.0), "got '2 of them'"),
        (lambda: Spread(discordant=0.0), "power: discordant must be a share > 0 and <= 1, got 0.0"),
        (lambda: Spread(deviation=math.nan), "power: deviation must be a finite number > 0, got nan"),
        (lambda: Spread(discordant=0.1).power(9, 0.2), "power: difference must be at most the share of items on which"),
        (lambda: Spread(deviation=1.0).power(9, -0.2), "power: difference must be a finite number >= 0, got -0.2"),
        (lambda: Spread(deviation=1.0).items_needed(0.0, power=0.8), "difference must be a finite number > 0, got 0.0"),
        (lambda: Spread(deviation=1.0).items_needed(0.1, power=1.0), "power: power must be a number > 0.05 and < 1"),
        (lambda: Spread(deviation=1.0).power(0, 0.1), "items must be a whole number >= 1 and <= 10000000, got 0"),
        (lambda: Spread(discordant=0.1).power(10**12, 0.1), "items must be a whole number >= 1 and <= 10000000"),
        (lambda: pilot_spread([1.0], [2.0]), "power: the pilot must be two items or more"),
    ],
)
def test_what_has_no_power_is_refused(make: object, message: str) -> None:
    """Each message names the parameter and its rule."""
    with pytest.raises(ParameterError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value)
