"""Rows that continue a prompt with tokens that the call has not seen are noticed, by hashes of their prefixes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from logitkit.errors import ContinuationWarning
from logitkit.processors.engine import Prompts, row_check
from logitkit.processors.engine.prefix_random import prefix_hashes
from logitkit.processors.engine.row_check import RowCheck

PROMPT = [3, 4]


def prompts() -> Prompts:
    """Return one prompt of two tokens."""
    ids = torch.tensor([PROMPT])
    return Prompts(ids=ids, mask=torch.ones(1, 2), texts=("",), messages=(None,), adds_specials=False)


class Slow:
    """The same rule with a set of tuples: a row is known if its prefix without the last token was asked about."""

    def __init__(self) -> None:
        self.asked: set[tuple[int, ...]] = set()

    def is_unknown(self, rows: list[list[int]]) -> bool:
        """Return whether a row is unknown; note all prefixes of rows."""
        unknown = any(row[:2] == PROMPT and len(row) > 2 and tuple(row[:-1]) not in self.asked for row in rows)
        self.asked |= {tuple(row[:end]) for row in rows for end in range(2, len(row) + 1)}
        return unknown


def step(check: RowCheck, rows: Tensor) -> bool:
    """Show rows as the composite does; return whether the check warned."""
    grew = check.grew_by_one(rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check.remember(rows) if grew is not None and bool(grew) else check.compare(rows)
    return any(isinstance(warning.message, ContinuationWarning) for warning in caught)


@given(st.data())
def test_equals_a_set_of_prefixes(data: Any) -> None:
    """Random growth, permutations, rewinds, other prompts and jumps are judged as by the set of all prefixes."""
    check, slow = RowCheck(prompts()), Slow()
    rows = [list(PROMPT) for _ in range(data.draw(st.integers(1, 3)))]
    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["grow", "grow", "shuffle", "rewind", "jump", "other prompt"]))
        length = len(rows[0])
        if kind == "shuffle":
            rows = [list(data.draw(st.sampled_from(rows))) for _ in rows]
        if kind == "rewind":
            length = data.draw(st.integers(2, length))
            rows = [row[:length] for row in rows]
        if kind == "other prompt":
            rows[0] = [9, *rows[0][1:]]
        new = {"rewind": 0, "jump": 2}.get(kind, 1)
        rows = [row + data.draw(st.lists(st.integers(0, 2), min_size=new, max_size=new)) for row in rows]
        unknown = slow.is_unknown(rows)
        assert step(check, torch.tensor(rows)) == unknown
        if unknown:
            break


def test_dropped_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many prefixes are known, those of the last rows stay: beams go on silently, an old row warns."""
    monkeypatch.setattr(row_check, "KEPT_PREFIXES", 4)
    check = RowCheck(prompts())
    assert not step(check, torch.tensor([PROMPT, PROMPT]))
    for length in range(8):
        beams = [[0] * length + [1], [0] * (length + 1)]  # the second row has both children
        assert not step(check, torch.tensor([PROMPT + beam for beam in beams]))
    assert step(check, torch.tensor([[*PROMPT, 1, 7]]))


def test_prefix_hashes() -> None:
    """Prefixes have equal hashes exactly if they are equal; places count."""
    rows = torch.tensor([[1, 2, 1], [1, 2, 2], [2, 1, 1], [0, 0, 0]])
    hashes = prefix_hashes(rows)
    assert torch.equal(hashes[0, :2], hashes[1, :2])
    assert len({*hashes.flatten().tolist()}) == 12 - 2
    assert torch.equal(prefix_hashes(rows.int()), hashes) and torch.equal(prefix_hashes(rows[:, :2]), hashes[:, :2])
