"""The largest products of rows with columns, against the whole product in float32 and float64."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from logitkit.processors.alignment import largest_products
from logitkit.processors.alignment.largest_products import LargestProducts, faster_dtype

DTYPES = [torch.bfloat16, torch.float32]


@pytest.fixture(autouse=True)
def small_groups() -> Iterator[None]:
    """Make groups so small that a few columns are many."""
    with mock.patch.multiple(largest_products, WIDTH=2, LEVELS=(5, 12), LEAST=1, CELLS=256, ROWS=1):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
def test_worked_example(dtype: torch.dtype) -> None:
    """By hand: the products are 0.6, 0.8 and 0.96; the offset -1 puts the last one behind the others."""
    columns = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]] + [[0.0, 0.0]] * 30)
    offsets = torch.tensor([0.0, 0.0, -1.0] + [0.0] * 30)
    values, places = LargestProducts(columns, offsets, dtype)(torch.tensor([[0.6, 0.8]]), 2)
    assert places.tolist() == [[1, 0]]
    torch.testing.assert_close(values, torch.tensor([[0.8, 0.6]]))


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(0, 2**16), st.integers(40, 120), st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_equal_to_the_whole_product(dtype: torch.dtype, seed: int, columns: int, rows: int, count: int) -> None:
    """The largest entries are those of the whole product, for rows of any length and offsets of any sign."""
    draw = torch.Generator().manual_seed(seed)
    table = normalize(torch.randn(columns, 6, generator=draw), dim=-1)
    offsets = torch.randn(columns, generator=draw) * 0.3
    left = torch.randn(rows, 6, generator=draw)
    whole = left.double() @ table.T.double() + offsets
    values, places = LargestProducts(table, offsets, dtype)(left, count)
    want = whole.topk(count, dim=-1)
    torch.testing.assert_close(values.double(), want.values, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.gather(1, places), want.values, rtol=0, atol=1e-5)
    assert all(len(set(row)) == count for row in places.tolist())


def test_entries_that_half_precision_cannot_order() -> None:
    """Columns that differ by less than bfloat16 resolves are ordered all the same, by whole rows where needed."""
    steps = torch.arange(64).flip(0) * 1e-5
    columns = torch.stack([1 - steps, torch.zeros(64)], 1)
    search = LargestProducts(columns, torch.zeros(64), torch.bfloat16)
    values, places = search(torch.tensor([[1.0, 0.0]] * 3), 5)
    assert places.tolist() == [[63, 62, 61, 60, 59]] * 3 and search.computed_whole == 3
    torch.testing.assert_close(values[0], columns[places[0], 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("least", [1, 10**6])
@given(st.lists(st.integers(0, 3), min_size=40, max_size=90), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_equal_entries_are_ordered_by_column(dtype: torch.dtype, least: int, kinds: list[int], count: int) -> None:
    """Among columns of four kinds, many entries are equal: the first columns are taken, by every way of searching."""
    table = normalize(torch.tensor([[0.3, 0.7, 0.1], [0.6, 0.1, 0.2], [0.1, 0.1, 0.9], [0.5, 0.5, 0.4]]), dim=-1)
    row = torch.tensor([0.2, 0.9, 0.4])
    values = (table * row).sum(-1)
    want = sorted(range(len(kinds)), key=lambda column: (-float(values[kinds[column]]), column))[:count]
    with mock.patch.object(largest_products, "LEAST", least):
        search = LargestProducts(table[kinds], torch.zeros(len(kinds)), dtype)
    assert search(torch.stack([row, row]), count)[1].tolist() == [want, want]


def test_few_columns_are_computed_whole() -> None:
    """Below the number of columns from which candidates pay, there is one product, and no choice of a type."""
    with mock.patch.multiple(largest_products, LEAST=100), mock.patch.object(largest_products, "faster_dtype") as none:
        values, places = LargestProducts(torch.eye(3), torch.zeros(3))(torch.tensor([[0.1, 0.3, 0.2]]), 3)
    assert places.tolist() == [[1, 2, 0]] and not none.called
    torch.testing.assert_close(values, torch.tensor([[0.3, 0.2, 0.1]]))


def test_the_faster_type_is_one_of_two() -> None:
    """The choice is between bfloat16 and float32."""
    assert faster_dtype(torch.eye(8)) in DTYPES
