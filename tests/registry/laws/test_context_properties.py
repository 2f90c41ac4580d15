"""Each law about layout, surroundings, settings, similar rows and returned scores catches processors that break it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.registry.laws import check_processor
from logitkit.registry.laws.context_properties import CONTEXT_LAWS


class Honest(LogitsProcessor):
    """Keeps every law: raises the score of the token id after the last one."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores)

    def raised(self, input_ids: Tensor, scores: Tensor, by: float = 1.0) -> Tensor:
        """The scores with that of the token after the last one raised."""
        return scores.scatter_add(1, (input_ids[:, -1:].long() + 1) % 250, torch.full((len(scores), 1), by).to(scores))


class RefusesInt32(Honest):
    """Keeps every law too: torch refuses int32 as an index."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter_add(1, input_ids[:, -1:], torch.ones(len(scores), 1).to(scores))


class DiffersForInt32(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, 1.0 if input_ids.dtype == torch.long else 3.0)


class DiffersBehindAnOffset(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, 1.0 + (scores.storage_offset() > 0))


class TakesRowsAsAdjacent(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        start, (rows, columns) = scores.storage_offset(), scores.shape
        return self.raised(input_ids, torch.as_strided(scores, (rows, columns), (columns, 1), start).clone())


class DiffersWithGradients(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, 1.0 + torch.is_grad_enabled())


class DiffersInInferenceMode(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, 1.0 + torch.is_inference_mode_enabled())


class DiffersInThreads(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, 1.0 + (threading.current_thread() is threading.main_thread()))


class CountsThreads(Honest):
    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.threads.add(threading.get_ident())
        return self.raised(input_ids, scores, float(len(self.threads)))


class ReadsSeconds(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, float(int(time.time()) % 10_000))


class ReadsHours(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, float(time.localtime().tm_hour))


class ReadsMilliseconds(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, time.perf_counter_ns() // 1_000_000 % 1000)


class EndsAfterASecond(Honest):
    """Has a time limit, counted from its first call."""

    start = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.start = self.start or time.monotonic()
        return scores if time.monotonic() < self.start + 1 else 2 * scores


class SetsGradientMode(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return scores


class SetsTheDefaultDtype(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return scores


class SetsDeterminism(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        torch.use_deterministic_algorithms(True)
        return scores


class Cached(Honest):
    """Remembers the first token of a row by a key that is too small."""

    def __init__(self) -> None:
        self.cache: dict[Any, int] = {}

    def key(self, row: list[int]) -> Any:
        return row[-1]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        totals = [[self.cache.setdefault(self.key(row), hash(tuple(row))) % 250] for row in input_ids.tolist()]
        return scores.scatter_add(1, torch.tensor(totals), torch.ones(len(scores), 1).to(scores))


class CachedByTwoTokens(Cached):
    def key(self, row: list[int]) -> Any:
        return tuple(row[-2:])


class CachedByFiveTokens(Cached):
    def key(self, row: list[int]) -> Any:
        return tuple(row[-5:])


class CachedByTokensWithoutOrder(Cached):
    def key(self, row: list[int]) -> Any:
        return len(row), sum(row)


class CachedWithoutScores(Honest):
    """Keeps its result for the same rows, whatever their scores."""

    def __init__(self) -> None:
        self.cache: dict[Any, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        key = tuple(map(tuple, input_ids.tolist()))
        return self.cache.setdefault(key, self.raised(input_ids, scores)).clone()


class OnceForEqualRows(Honest):
    """Computes equal rows of a batch once, whatever their scores."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = [tuple(row) for row in input_ids.tolist()]
        return self.raised(input_ids, scores)[[rows.index(row) for row in rows]]


class ReturnsItsCache(Honest):
    """Returns the tensor that it keeps for the next call."""

    def __init__(self) -> None:
        self.cache: dict[Any, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        key = str(input_ids.tolist()) + str(scores.tolist())
        return self.cache.setdefault(key, self.raised(input_ids, scores))


class DiffersForFiveRows(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.raised(input_ids, scores, 2.0 if len(scores) == 5 else 1.0)


class RemembersTheFirstBatch(Honest):
    first = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.first = self.first or len(scores)
        return self.raised(input_ids, scores, 1.0 + 0.1 * (len(scores) - self.first))


VILLAINS = [
    ("ignores_the_layout", DiffersForInt32),
    ("ignores_the_layout", DiffersBehindAnOffset),
    ("ignores_the_layout", TakesRowsAsAdjacent),
    ("ignores_its_surroundings", DiffersWithGradients),
    ("ignores_its_surroundings", DiffersInInferenceMode),
    ("ignores_its_surroundings", DiffersInThreads),
    ("ignores_its_surroundings", CountsThreads),
    ("ignores_its_surroundings", ReadsSeconds),
    ("ignores_its_surroundings", ReadsHours),
    ("ignores_its_surroundings", ReadsMilliseconds),
    ("ignores_its_surroundings", EndsAfterASecond),
    ("leaves_settings_alone", SetsGradientMode),
    ("leaves_settings_alone", SetsTheDefaultDtype),
    ("leaves_settings_alone", SetsDeterminism),
    ("tells_rows_apart", Cached),
    ("tells_rows_apart", CachedByTwoTokens),
    ("tells_rows_apart", CachedByFiveTokens),
    ("tells_rows_apart", CachedByTokensWithoutOrder),
    ("tells_rows_apart", CachedWithoutScores),
    ("tells_rows_apart", OnceForEqualRows),
    ("returns_what_may_be_written", ReturnsItsCache),
    ("holds_in_large_batches", DiffersForFiveRows),
    ("holds_in_large_batches", RemembersTheFirstBatch),
]


@pytest.mark.parametrize(("law", "villain"), VILLAINS, ids=[villain.__name__ for _, villain in VILLAINS])
def test_the_law_catches_its_faulty_processor(law: str, villain: Any) -> None:
    """The law that the processor is built to break fails, with a reason, and the settings of torch stay."""
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    (result,) = check_processor(villain, laws=[law]).results
    assert not result.kept and result.reason and "Error:" not in result.reason, result.reason
    assert before == (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.parametrize("kind", [Honest, RefusesInt32])
def test_an_honest_processor_keeps_every_law(kind: Any) -> None:
    """A processor without faults keeps every law, also if it refuses ids of int32."""
    assert check_processor(kind).failures == []


def test_settings_that_another_law_saw_change_are_caught_too() -> None:
    """All laws together find a changed setting, though it was changed in the first of them."""
    assert [result.law for result in check_processor(SetsDeterminism).failures] == ["leaves_settings_alone"]


def test_the_clocks_are_set_back() -> None:
    """After the law the clocks of the module `time` are the original ones."""
    clocks = time.time, time.time_ns, time.perf_counter_ns, time.localtime
    check_processor(EndsAfterASecond, laws=["ignores_its_surroundings"])
    assert clocks == (time.time, time.time_ns, time.perf_counter_ns, time.localtime)


def test_every_law_of_this_module_has_a_faulty_processor() -> None:
    """For each law of `context_properties`, this module has a processor that breaks it."""
    assert {law.__name__ for law in CONTEXT_LAWS} <= {law for law, _ in VILLAINS}
