"""Divergences by hand, their limits, their definitions in plain Python, and their errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.errors import ParameterError
from logitkit.processors.engine import divergence, js_bits

FIRST = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).log()
SECOND = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]).log()
P, Q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
LN2, INF = math.log(2), math.inf
MASSES = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)


def by_definition(p: list[float], q: list[float], kind: str, alpha: float) -> float:
    """Return a divergence as a sum over tokens in a loop; infinite where one term is infinite."""

    def kl(first: list[float], second: list[float]) -> float:
        terms = zip(first, second, strict=True)
        return sum(INF if not b else a * math.log(a / b) for a, b in terms if a)

    pairs = [(a, b) for a, b in zip(p, q, strict=True) if a or b]
    middle = [alpha * a + (1 - alpha) * b for a, b in zip(p, q, strict=True)]
    if kind in ("renyi", "alpha"):
        affinity = sum((INF if alpha > 1 else 0.0) if not b else a**alpha * b ** (1 - alpha) for a, b in pairs if a)
        if kind == "alpha":
            return (affinity - 1) / (alpha * (alpha - 1))
        return (math.log(affinity) if affinity else -INF) / (alpha - 1)
    return {
        "kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "js": lambda: alpha * kl(p, middle) + (1 - alpha) * kl(q, middle),
        "jeffreys": lambda: kl(p, q) + kl(q, p),
        "tv": lambda: sum(abs(a - b) for a, b in pairs) / 2,
        "hellinger": lambda: math.sqrt(max(0, 1 - sum(math.sqrt(a * b) for a, b in pairs))),
        "chi2": lambda: sum(INF if not b else (a - b) ** 2 / b for a, b in pairs),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "alpha", "value"),
    [
        ("kl", 0.5, 0.5 * LN2),  # 1/2 log 2 + 1/2 log 1
        ("reverse_kl", 0.5, INF),  # the third token is impossible under p
        ("js", 0.5, 1.5 * LN2 - 0.75 * math.log(3) + 0.125 * math.log(2)),
        ("js", 0.75, None),
        ("jeffreys", 0.5, INF),
        ("renyi", 2.0, math.log(1.5)),  # .25 / .25 + .25 / .5
        ("renyi", 0.0, -math.log(0.75)),
        ("renyi", 1.0, 0.5 * LN2),
        ("renyi", INF, LN2),
        ("alpha", 2.0, 0.25),  # (1.5 - 1) / 2
        ("alpha", 1.0, 0.5 * LN2),
        ("tv", 0.5, 0.25),
        ("hellinger", 0.5, math.sqrt(1 - 0.5 - math.sqrt(0.125))),
        ("chi2", 0.5, 0.5),  # .0625 / .25 + 0 + .0625 / .25
    ],
)
def test_worked_example(kind: str, alpha: float, value: float | None) -> None:
    """p = (1/2, 1/2, 0) against q = (1/4, 1/2, 1/4), by hand."""
    if value is None or kind == "js":  # 3/8, 1/2, 1/8 in the middle, or its weighted form
        value = by_definition([0.5, 0.5, 0.0], [0.25, 0.5, 0.25], kind, alpha)
    assert divergence(P, Q, kind, alpha).item() == pytest.approx(value, abs=1e-6)  # type: ignore[arg-type]


def test_js_of_equal_disjoint_and_half_shared_rows() -> None:
    """Equal rows have 0 bits and disjoint rows 1 bit; sharing half of the mass gives half a bit."""
    torch.testing.assert_close(js_bits(FIRST, SECOND), torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(divergence(FIRST, SECOND), torch.tensor([0.0, LN2, LN2 / 2]))


@given(first=MASSES, second=MASSES, alpha=st.sampled_from([0.1, 0.5, 0.9, 0.99, 2.0]))
@settings(max_examples=60, deadline=None)
def test_every_kind_equals_its_definition(first: list[int], second: list[int], alpha: float) -> None:
    """Each kind equals the sum of its terms, is >= 0, and is 0 for equal rows."""
    p, q = ([mass / sum(masses) for mass in masses] for masses in (first, second))
    rows = [torch.tensor([law], dtype=torch.float64).log() for law in (p, q)]
    for kind in ("kl", "reverse_kl", "js", "jeffreys", "renyi", "alpha", "tv", "hellinger", "chi2"):
        if kind == "js" and alpha >= 1:
            continue
        got = divergence(rows[0], rows[1], kind, alpha)  # type: ignore[arg-type]
        assert got.dtype == torch.float64 and got.item() >= 0
        assert got.item() == pytest.approx(by_definition(p, q, kind, alpha), abs=1e-7)
        assert divergence(rows[0], rows[0], kind, alpha).item() == pytest.approx(0, abs=1e-7)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["renyi", "alpha"])
def test_orders_near_a_limit_approach_it(kind: str) -> None:
    """Orders around 1 and around 0 differ from the limit by little, on both sides."""
    p, q = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()
    for limit, at_limit in ((1.0, "kl"), (0.0, "reverse_kl" if kind == "alpha" else None)):
        expected = divergence(p, q, at_limit) if at_limit else torch.zeros(1)  # type: ignore[arg-type]
        for order in (limit, limit + 1e-4, abs(limit - 1e-4), limit + 1e-7):
            torch.testing.assert_close(divergence(p, q, kind, order), expected, rtol=0, atol=1e-3)  # type: ignore[arg-type]


def test_symmetry_the_scale_of_logits_and_masks() -> None:
    """Js is symmetric; a constant added to a row changes nothing; finfo.min is as impossible as -inf."""
    first, second = torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(0)).unbind(0)
    torch.testing.assert_close(divergence(first, second), divergence(second + 3, first), rtol=0, atol=1e-6)
    masked = P.masked_fill(P == -INF, torch.finfo(torch.float32).min)
    assert torch.equal(divergence(masked, Q, "chi2"), divergence(P, Q, "chi2"))


def test_unknown_kinds_and_alphas_outside_their_range_are_refused() -> None:
    """The errors name what is known."""
    with pytest.raises(ParameterError, match=r"divergence: kind must be one of 'kl', 'reverse_kl', .*, got 'bits'"):
        divergence(FIRST, SECOND, "bits")  # type: ignore[arg-type]
    for kind, alpha, rule in (
        ("js", 0.0, "a weight > 0 and < 1"),
        ("renyi", -1.0, "an order >= 0"),
        ("alpha", INF, ""),
    ):
        with pytest.raises(ParameterError, match=f"divergence: alpha must be {rule}"):
            divergence(FIRST, SECOND, kind, alpha)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([-math.inf, torch.finfo(torch.float32).min, -65504.0]))
def test_bits_of_js_are_its_nats(seed: int, mask: float) -> None:
    """The difference of entropies equals the mean of the two divergences from the mixture, under every kind of mask."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (
        (4 * torch.randn(3, 9, generator=generator)).masked_fill(
            torch.rand(3, 9, generator=generator).scatter(1, torch.zeros(3, 1, dtype=torch.long), 1.0) < 0.3, mask
        )
        for _ in range(2)
    )
    torch.testing.assert_close(js_bits(first, second), divergence(first, second, "js") / math.log(2))
    assert js_bits(first, first).tolist() == [0.0, 0.0, 0.0]
