"""Paired statistics: by hand, by enumeration, and by what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from logitkit.bench.report.statistics import compare, holm, interval, mcnemar, sign_flips


def test_holm_by_hand() -> None:
    """The smallest of three times 3, the next times 2, never falling, never above 1."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def test_mcnemar_by_hand() -> None:
    """Five gained and none lost: two of 32 tosses. None either way: no evidence."""
    assert mcnemar(5, 0) == pytest.approx(2 / 32) and mcnemar(3, 3) == 1 == mcnemar(0, 0)


def test_sign_flips_by_enumeration() -> None:
    """Every one of the 2^6 choices of signs."""
    d = np.array([0.5, -0.1, 0.7, 0.2, -0.3, 0.4])
    means = [np.mean(d * signs) for signs in itertools.product([1, -1], repeat=6)]
    share = np.mean([abs(mean) >= abs(d.mean()) - 1e-12 for mean in means])
    assert sign_flips(d) == pytest.approx(share) and sign_flips(np.zeros(4)) == 1


def test_intervals_cover_what_they_promise() -> None:
    """Of 200 samples of 40 skewed numbers with mean 1; a right interval covers it in fewer than 175 once in 1000."""
    rng = np.random.default_rng(0)
    found = [interval(rng.exponential(size=40)) for _ in range(200)]
    assert 175 <= sum(low <= 1 <= high for low, high in found) < 200


def test_what_does_not_vary_has_no_interval() -> None:
    """Nor has a single value; no warning either."""
    assert interval(np.ones(5)) == (1, 1) and interval(np.array([3.0])) == (3, 3)


def test_a_difference_is_called_only_where_it_holds() -> None:
    """Seven gains, no loss: better, alone. Beside nineteen strategies that change nothing, Holm takes it back."""
    base, gain = [0.0] * 20, [1.0] * 7 + [0.0] * 13
    (alone,) = compare(base, [gain])
    assert alone.up == 7 and alone.down == 0 and alone.p == pytest.approx(2 / 128) and alone.test.startswith("McNemar")
    assert alone.conclusion("higher") == "better" and alone.conclusion("lower") == "worse"
    assert alone.conclusion(None) == "different"
    many = compare(base, [gain, *[base] * 19])
    assert many[0].adjusted == pytest.approx(20 * 2 / 128) and many[0].conclusion("higher") == "not shown"
    assert many[1].difference == 0 and many[1].p == 1 and many[1].conclusion("higher") == "not shown"


def test_numbers_are_compared_by_their_differences() -> None:
    """Pairing finds a small shift under a large spread; the same numbers shuffled would not."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=30) * 10
    (found,) = compare(base.tolist(), [(base + 0.1 + rng.normal(size=30) * 0.05).tolist()])
    assert found.test == "sign flips" and found.conclusion("higher") == "better" and found.low > 0.07


def test_no_false_calls() -> None:
    """Two equal strategies, 100 times: called different in at most 13, which chance alone exceeds once in 1000."""
    rng = np.random.default_rng(2)
    pairs = [(rng.integers(0, 2, 50), rng.integers(0, 2, 50)) for _ in range(100)]
    calls = [compare(a.tolist(), [b.tolist()])[0].conclusion("higher") != "not shown" for a, b in pairs]
    assert sum(calls) <= 13
