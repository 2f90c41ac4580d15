"""The largest entries in each row of a product of two matrices, without computing every entry in full precision.

1. The whole product is computed in bfloat16, with a bound of its error.
2. Its columns fall into groups of `WIDTH` parts of `WIDTH` columns. The largest entries in the best parts of the best
   groups of a row are its candidates. So few numbers are compared, although a row has tens of thousands.
3. The entries of the candidates are computed again in float32. The largest of them are the result if all other entries
   are surely smaller. Else there are more candidates, and at last the whole row is computed in float32.

So the result is that of a product in float32, up to its rounding. Of equal entries, those of the first columns are
taken, in their order. The first product is in float32 too where the processor multiplies such numbers faster, which is
measured.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.functional import pad

WIDTH = 8  # number of columns in a part, and of parts in a group
LEVELS = 24, 96, 384  # number of candidates of a row, and of their parts and groups; the next one if one is too few
CELLS = 2**23  # number of entries at once, two or four bytes each: about as many as a shared cache holds
ROWS = 128  # least number of rows at once: products of fewer rows take longer for each
LEAST = 2**13  # number of columns from which candidates are faster than whole rows
ABSENT = -1e4  # offset of the columns that fill the last group; far below all others
SLACK = 1e-4  # more than the error of sums in float32


class LargestProducts:
    """Finds the largest products of rows with columns.

    Args:
        columns: vectors of length 1 at most, float32, ``[columns, width]``.
        offsets: numbers that are added to the products with each column, ``[columns]``.
        dtype: type of the first product; None: the faster one of bfloat16 and float32.

    Attributes:
        computed_whole: number of rows that were computed as a whole in float32.

    >>> columns = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> search = LargestProducts(columns, torch.tensor([0.0, 0.0, -1.0]))
    >>> values, places = search(torch.tensor([[0.5, 0.9]]), 2)
    >>> places
    tensor([[1, 0]])
    """

    def __init__(self, columns: Tensor, offsets: Tensor, dtype: torch.dtype | None = None) -> None:
        self._columns, self._offsets, self.computed_whole = columns, offsets, 0
        self._is_small = len(columns) < LEAST
        if self._is_small:
            return
        self._parts = -(-len(columns) // WIDTH**2) * WIDTH
        self._dtype = dtype or faster_dtype(columns)
        rough = columns.to(self._dtype)
        # Two more columns hold the offsets: what one number of this type leaves of an offset, the other one holds.
        high = offsets.to(self._dtype)
        low = (offsets - high.float()).to(self._dtype)
        filled = pad(torch.cat([rough, high[:, None], low[:, None]], 1), (0, 0, 0, self._parts * WIDTH - len(columns)))
        filled[len(columns) :, -2] = ABSENT
        self._table = filled.T.contiguous()  # [width + 2, parts * WIDTH]
        self._length = float(columns.norm(dim=1).max())
        self._error = float((columns - rough.float()).norm(dim=1).max())
        self._offset_error = float((offsets - high.float() - low.float()).abs().max())
        self._buffer = torch.empty(max(ROWS, CELLS // self._table.shape[1]), self._table.shape[1], dtype=self._dtype)

    def __call__(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` largest entries of each row and their columns, the largest first.

        Args:
            rows: vectors, float32, ``[rows, width]``.
            count: at most the first number of `LEVELS`, and the number of columns.
        """
        if self._is_small:
            return self._whole(rows, count)
        parts = [self._of_block(block, count) for block in rows.split(len(self._buffer))]
        values, places, sure = (torch.cat(part) for part in zip(*parts, strict=True))
        rest = (~sure).nonzero()[:, 0]
        self.computed_whole += len(rest)
        for some in rest.split(len(self._buffer)):
            values[some], places[some] = self._whole(rows[some], count)
        return values, places

    def _whole(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the result for a few rows by their products with all columns in float32."""
        return _largest(torch.addmm(self._offsets, rows, self._columns.T), count)

    def _of_block(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the result for rows whose products fit into the buffer, and whether it is sure, ``[rows]``."""
        rough = rows.to(self._dtype)
        product = torch.mm(pad(rough, (0, 2), value=1.0), self._table, out=self._buffer[: len(rows)])
        table = product.view(len(rows), WIDTH, self._parts)
        grouped = table.amax(1).view(len(rows), WIDTH, -1)  # the largest of each part, [rows, WIDTH, groups]
        peaks = grouped.amax(1)  # [rows, groups]
        values, places = rows.new_empty(len(rows), count), torch.empty(len(rows), count, dtype=torch.long)
        rest, is_sure = torch.arange(len(rows)), torch.zeros(len(rows), dtype=torch.bool)
        for candidates in LEVELS:
            groups, in_groups = _top(peaks[rest], candidates)
            parts, in_parts = _top_within(grouped, rest, groups, candidates)
            columns, in_columns = _top_within(table, rest, parts, candidates)
            left_out = torch.maximum(torch.maximum(in_groups, in_parts), in_columns).float()
            found, place = self._among(rows[rest], columns, count)
            sure = found[:, -1] > left_out + self._error_of(rows[rest], rough[rest].float(), left_out)
            values[rest[sure]], places[rest[sure]], is_sure[rest[sure]] = found[sure], place[sure], True
            rest = rest[~sure]
            if not len(rest):
                break
        return values, places, is_sure

    def _among(self, rows: Tensor, columns: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the largest entries of each row among some columns, in float32, and the numbers of these columns."""
        columns = columns.sort(dim=-1).values
        known = columns.clamp(max=len(self._columns) - 1).flatten()
        # The sum of each product is taken alike wherever it stands, so that equal columns have equal entries.
        products = self._columns.index_select(0, known).view(*columns.shape, -1).mul_(rows[:, None]).sum(-1)
        products += self._offsets.index_select(0, known).view(columns.shape)
        values, places = _largest(products.masked_fill_(columns >= len(self._columns), -torch.inf), count)
        return values, columns.gather(1, places)

    def _error_of(self, rows: Tensor, rough: Tensor, value: Tensor) -> Tensor:
        """Return how far entries of the first product, up to a value, can be below the true ones, ``[rows]``."""
        inputs = (rows - rough).norm(dim=1) * self._length + rough.norm(dim=1) * self._error + self._offset_error
        error: Tensor = inputs + value.abs() * torch.finfo(self._dtype).eps / 2 + SLACK
        return error


def _largest(table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest entries of each row and their places, the largest and then the first of equal ones first."""
    places = table.topk(count, dim=-1).indices
    found = table.gather(1, places)
    last = found.amin(1, keepdim=True)
    # `torch.topk` takes any of several equal entries; where it had a choice, the row is sorted.
    chosen = (table == last).sum(1) != (found == last).sum(1)
    places[chosen] = table[chosen].sort(dim=-1, descending=True, stable=True).indices[:, :count]
    places = places.sort(dim=-1).values
    values, order = table.gather(1, places).sort(dim=-1, descending=True, stable=True)
    return values, places.gather(1, order)


def _top(table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the places of the largest entries of each row, ``[rows, count]``, and the largest entry left out."""
    best = table.topk(min(count + 1, table.shape[1]), dim=-1)
    # Where no entry is left out, the smallest one is returned: it makes the bound higher than need be.
    return best.indices[:, :count], best.values[:, -1]


def _top_within(table: Tensor, rows: Tensor, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest entries within chosen parts of some rows of a table, as `_top` does.

    Args:
        table: numbers, ``[all rows, WIDTH, parts]``.
        rows: numbers of the rows.
        chosen: numbers of parts, ``[rows, chosen]``.
        count: number of entries.

    Returns:
        The places of the entries in ``table.flatten(1)``, and the largest of the chosen entries that is left out.
    """
    _, width, parts = table.shape
    places = (torch.arange(width)[:, None] * parts + chosen[:, None]).flatten(1)  # [rows, width * chosen]
    inside = table.view(-1).take(places + rows[:, None] * (width * parts))
    place, left_out = _top(inside, count)
    return places.gather(1, place), left_out


def faster_dtype(columns: Tensor) -> torch.dtype:
    """Return which of bfloat16 and float32 a product with some columns takes less time in."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        table = columns[:LEAST].to(dtype)
        rows = table[:256]
        durations = []
        for _ in range(3):
            begun = time.perf_counter()
            torch.mm(rows, table.T)
            durations.append(time.perf_counter() - begun)
        seconds[dtype] = min(durations)
    return min(seconds, key=lambda dtype: seconds[dtype])
