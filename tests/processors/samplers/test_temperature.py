"""Temperatures and the quadratic transform by hand, against slow references, and their properties."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.samplers import (
    DynamicTemperature,
    EntropyTemperature,
    Quadratic,
    dynamic_temperature,
    entropy_temperature,
    quadratic,
)
from logitkit.processors.samplers.temperature import divided
from logitkit.registry.laws import tiny_model, tiny_tokenizer

Row = list[float]
ROWS = st.lists(st.one_of(st.floats(-12, 12, width=16), st.just(-math.inf)), min_size=2, max_size=9).filter(
    lambda row: max(row) > -math.inf
)
IDS = torch.tensor([[7]])


def entropy(row: Row) -> tuple[float, int]:
    """Return the entropy of a row in nats and its number of possible tokens."""
    weights = [math.exp(score - max(row)) for score in row if score > -math.inf]
    total = math.fsum(weights)
    return -math.fsum(w / total * math.log(w / total) for w in weights), len(weights)


def scaled(row: Row, temperature: float) -> Row:
    return [score / temperature for score in row]


def reference_dynamic(row: Row, low: float, high: float, exponent: float) -> Row:
    nats, count = entropy(row)
    share = max(0.0, nats / math.log(count)) if count > 1 else 0.0
    return scaled(row, low + (high - low) * share**exponent) if count > 1 else row


def reference_entropy(row: Row, temperature: float, theta: float, base: float) -> Row:
    nats, _ = entropy(row)
    exponent = theta / nats if nats > 0 else math.inf
    return scaled(row, max(1e-3, temperature * base**exponent))


def reference_quadratic(row: Row, factor: float, curve: float) -> Row:
    best, k, s = max(row), (3 - curve) / 2, (curve - 1) / 2
    xs = [score - best for score in row]
    return [best - k * factor * x**2 + s * factor * x**3 if x > -math.inf else x for x in xs]


CASES: list[tuple[Callable[..., Tensor], Callable[..., Row], dict[str, float]]] = [
    (dynamic_temperature, reference_dynamic, {"low": 0.4, "high": 1.7, "exponent": 1.3}),
    (entropy_temperature, reference_entropy, {"temperature": 1.2, "theta": 0.4, "base": 0.7}),
    (quadratic, reference_quadratic, {"factor": 0.3, "curve": 1.6}),
    (quadratic, reference_quadratic, {"factor": 0.3, "curve": 3.0}),
]
NAMED = pytest.mark.parametrize(("function", "reference", "options"), CASES)


@NAMED
@settings(max_examples=60, deadline=None)
@given(row=ROWS)
def test_the_scores_are_those_of_the_definition(
    function: Callable[..., Tensor], reference: Callable[..., Row], options: dict[str, float], row: Row
) -> None:
    """Rows with ties and masks, up to the rounding of fp32; impossible tokens stay impossible."""
    got = function(torch.tensor([row]), **options)
    want = torch.tensor([reference(row, **options)], dtype=torch.float64)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@NAMED
def test_rows_are_independent_and_the_order_stays(
    function: Callable[..., Tensor], reference: Callable[..., Row], options: dict[str, float]
) -> None:
    """A sure row beside a flat one keeps its own entropy and its own maximum; the order of tokens does not change."""
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1.0], [4.0], [20.0]])
    batch = function(rows, **options)
    for row in range(4):
        torch.testing.assert_close(batch[row : row + 1], function(rows[row : row + 1], **options), rtol=0, atol=0)
        assert torch.equal(batch[row].argsort(stable=True), rows[row].argsort(stable=True))


@NAMED
def test_a_shift_of_the_row_changes_no_probability(
    function: Callable[..., Tensor], reference: Callable[..., Row], options: dict[str, float]
) -> None:
    """Logits and logits plus a constant give one distribution."""
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(3))
    got, want = (function(scores, **options).softmax(-1) for scores in (rows + 4.0, rows))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_dynamic_temperature_by_hand() -> None:
    """A uniform row gets the high temperature, a sure one the low one; a lone token is not touched."""
    flat, sure = torch.zeros(1, 4) + 3.0, torch.tensor([[3.0, -40.0]])
    assert dynamic_temperature(flat, low=0.5, high=1.5).tolist() == [[2.0] * 4]
    assert dynamic_temperature(sure, low=0.5, high=1.5).tolist() == [[6.0, -80.0]]
    lone = torch.tensor([[3.0, -torch.inf]])
    assert dynamic_temperature(lone, low=0.5, high=1.5).tolist() == [[3.0, -math.inf]]
    quarter = torch.tensor([[0.25, 0.25, 0.25, 0.25, 0.0]]).log()  # impossible tokens count neither in H nor in n
    assert torch.equal(dynamic_temperature(quarter, low=0.5, high=2.0), quarter / 2.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [9.0, 16.0, 60.0, 300.0])
def test_the_temperature_of_sure_rows_is_not_rounded(dtype: torch.dtype, distance: float) -> None:
    """By hand: with low 0 the temperature is H / log 2, H of (1 - q, q) with q = 1 / (1 + exp(distance))."""
    q = 1 / (1 + math.exp(distance))
    entropy = -math.log1p(-q) * (1 - q) - q * math.log(q)
    got = dynamic_temperature(torch.tensor([[distance, 0.0]], dtype=dtype), low=0.0, high=1.0).double()
    want = distance * math.log(2) / entropy  # of the difference of the two scores
    if want < torch.finfo(dtype).max:
        assert float(got[0, 0] - got[0, 1]) == pytest.approx(want, rel=1e-3 if dtype is torch.float16 else 1e-5)
    else:
        assert got[0, 1] == -math.inf and math.isfinite(got[0, 0])


def test_the_temperature_zero_keeps_the_first_of_the_best() -> None:
    """A sure row with low 0, and every row with both 0; of equal scores the smaller id stays."""
    sure = torch.tensor([[3.0, -800.0]])
    assert dynamic_temperature(sure, low=0.0, high=1.0).tolist() == [[3.0, -math.inf]]
    tied = torch.tensor([[1.0, 2.0, 2.0]])
    assert dynamic_temperature(tied, low=0.0, high=0.0).tolist() == [[-math.inf, 2.0, -math.inf]]


def test_entropy_temperature_by_hand() -> None:
    """H = log 2: theta = log 2 gives the base; H = 0 gives 0.001; theta 0 a fixed temperature."""
    even = torch.tensor([[1.0, 1.0]])
    got = entropy_temperature(even, temperature=1.0, theta=math.log(2), base=0.5)
    torch.testing.assert_close(got, torch.tensor([[2.0, 2.0]]))
    lone = torch.tensor([[1.0, -torch.inf]])
    torch.testing.assert_close(entropy_temperature(lone, temperature=1.0, theta=0.5)[0, 0], torch.tensor(1000.0))
    assert entropy_temperature(even, temperature=2.0, theta=0.0).tolist() == [[0.5, 0.5]]


def test_quadratic_by_hand() -> None:
    """curve 1: 2 - 0.5 x^2; curve 3: 2 + 0.5 x^3 for x = 0, -1, -3; curve 2: both halved."""
    row = torch.tensor([[2.0, 1.0, -1.0]])
    assert quadratic(row, factor=0.5).tolist() == [[2.0, 1.5, -2.5]]
    assert quadratic(row, factor=0.5, curve=3.0).tolist() == [[2.0, 1.5, -11.5]]
    assert quadratic(row, factor=0.5, curve=2.0).tolist() == [[2.0, 1.5, -7.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_quotients_beyond_the_dtype_shift_the_row(dtype: torch.dtype) -> None:
    """Scores of nearly the largest number over 0.5: the differences stay, and the largest becomes 0."""
    largest = torch.finfo(dtype).max
    row = torch.tensor([[largest, 0.75 * largest, -1.0]], dtype=dtype)
    got = divided(row, torch.tensor([[0.5]]))
    assert (
        float(got[0, 0]) == 0
        and float(got[0, 1]) == pytest.approx(-largest / 2, rel=0.01)
        and not bool(got.isnan().any())
    )


@pytest.mark.parametrize(
    "processor",
    [DynamicTemperature(low=1.0, high=1.0), EntropyTemperature(temperature=1.0, theta=0.0), Quadratic(factor=0.0)],
)
def test_neutral_values_return_the_scores_themselves(
    processor: DynamicTemperature | EntropyTemperature | Quadratic,
) -> None:
    """Not a copy, so every bit is the same."""
    scores = torch.randn(2, 9)
    assert processor(IDS, scores) is scores


def test_limits_in_the_wrong_order_are_refused() -> None:
    """The error names both."""
    with pytest.raises(ParameterError, match=r"dynamic_temperature: high must be at least low, which is 2.0, got 1.5"):
        logitkit.chain("dynamic_temperature(low=2.0)").bind(tiny_model(), tiny_tokenizer(), "ab")
