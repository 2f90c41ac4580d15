"""The largest entries in each row of a product of two matrices, without computing every entry in full precision.

1. The whole product is computed in bfloat16, with a bound of its error.
2. Its columns fall into groups. The largest entries of the best groups of a row are its candidates.
3. The entries of the candidates are computed again in float32. The largest of them are the result if all other entries
   are surely smaller. Else there are more candidates, and at last the whole row is computed in float32.

So the result is that of a product in float32, up to its rounding. The first product is in float32 too where the
processor multiplies such numbers faster, which is measured.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.functional import pad

DEPTH = 64  # number of columns in a group
LEVELS = ((24, 32), (96, 256))  # numbers of groups and of candidates of a row; the second one if the first is too few
CELLS = 2**25  # largest number of entries in memory, two or four bytes each
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
        self._groups = -(-len(columns) // DEPTH)
        self._dtype = dtype or faster_dtype(columns)
        rough = columns.to(self._dtype)
        # Two more columns hold the offsets: what one number of this type leaves of an offset, the other one holds.
        high = offsets.to(self._dtype)
        low = (offsets - high.float()).to(self._dtype)
        filled = pad(torch.cat([rough, high[:, None], low[:, None]], 1), (0, 0, 0, self._groups * DEPTH - len(columns)))
        filled[len(columns) :, -2] = ABSENT
        self._table = filled.T.contiguous()  # [width + 2, groups * DEPTH]
        self._length = float(columns.norm(dim=1).max())
        self._error = float((columns - rough.float()).norm(dim=1).max())
        self._offset_error = float((offsets - high.float() - low.float()).abs().max())
        self._buffer = torch.empty(max(1, CELLS // self._table.shape[1]), self._table.shape[1], dtype=self._dtype)

    def __call__(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` largest entries of each row and their columns, the largest first.

        Args:
            rows: vectors, float32, ``[rows, width]``.
            count: at most the first number of candidates in `LEVELS`, and the number of columns.
        """
        if self._is_small:
            return self._whole(rows, count)
        parts = [self._of_block(block, count) for block in rows.split(len(self._buffer))]
        values, places = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(places)

    def _whole(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the result for a few rows by their products with all columns in float32."""
        best = torch.addmm(self._offsets, rows, self._columns.T).topk(count, dim=-1)
        return best.values, best.indices

    def _of_block(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the result for rows whose products fit into the buffer."""
        rough = rows.to(self._dtype)
        product = torch.mm(pad(rough, (0, 2), value=1.0), self._table, out=self._buffer[: len(rows)])
        table = product.view(len(rows), DEPTH, self._groups)
        values, places = rows.new_empty(len(rows), count), torch.empty(len(rows), count, dtype=torch.long)
        rest = torch.arange(len(rows))
        for groups, candidates in LEVELS:
            part = table if len(rest) == len(rows) else table[rest]
            found, place, left_out = self._of_candidates(rows[rest], part, count, groups, candidates)
            sure = found[:, -1] > left_out + self._error_of(rows[rest], rough[rest].float(), left_out)
            values[rest[sure]], places[rest[sure]] = found[sure], place[sure]
            rest = rest[~sure]
            if not len(rest):
                return values, places
        self.computed_whole += len(rest)
        values[rest], places[rest] = self._whole(rows[rest], count)
        return values, places

    def _of_candidates(
        self, rows: Tensor, table: Tensor, count: int, groups: int, candidates: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the largest entries among the candidates, their columns, and a bound of all other entries.

        Args:
            rows: vectors, ``[rows, width]``.
            table: their first products, ``[rows, DEPTH, groups of columns]``.
            count: number of entries.
            groups: number of groups in which candidates are searched.
            candidates: number of candidates.
        """
        peaks = table.amax(1).topk(min(groups + 1, self._groups), dim=-1)  # the last one bounds the groups left out
        chosen = peaks.indices[:, :groups]  # [rows, groups]
        inside = table.gather(2, chosen[:, None].expand(-1, DEPTH, -1)).flatten(1)
        best = inside.topk(min(candidates + 1, inside.shape[1]), dim=-1)  # the last one bounds the entries left out
        depth, number = best.indices[:, :-1] // chosen.shape[1], best.indices[:, :-1] % chosen.shape[1]
        columns = depth * self._groups + chosen.gather(1, number)  # [rows, candidates]
        absent = columns >= len(self._columns)
        columns = columns.clamp(max=len(self._columns) - 1)
        exact = torch.bmm(self._columns[columns], rows[:, :, None])[:, :, 0] + self._offsets[columns]
        exact = exact.masked_fill(absent, -torch.inf)
        values, places = exact.topk(count, dim=-1)
        left_out = torch.maximum(best.values[:, -1], peaks.values[:, -1]).float()
        return values, columns.gather(1, places), left_out

    def _error_of(self, rows: Tensor, rough: Tensor, value: Tensor) -> Tensor:
        """Return how far entries of the first product, up to a value, can be below the true ones, ``[rows]``."""
        inputs = (rows - rough).norm(dim=1) * self._length + rough.norm(dim=1) * self._error + self._offset_error
        error: Tensor = inputs + value.abs() * torch.finfo(self._dtype).eps / 2 + SLACK
        return error


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
