"""The laws about what surrounds a call: layout of the arguments, thread, modes and settings of torch, and the clock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from logitkit.registry.laws.comparison import assert_same_distribution
from logitkit.registry.laws.process_settings import kept_settings, settings
from logitkit.registry.laws.subjects import Subject

# Seconds by which a law advances the clocks of the calendar (a day and three hours) and all other clocks.
DAY, MOMENT = 97_231.37, 1.37


def ignores_the_layout(subject: Subject) -> None:
    """Views of larger tensors, transposed memory and ids of int32 give the result of contiguous int64 arguments."""
    ids, scores = subject.rows(), subject.scores()
    expected = subject.make()(ids, scores.clone())
    views = {
        "parts of larger tensors": (_part_of_larger(ids), _part_of_larger(scores)),
        "transposed memory": (ids.t().contiguous().t(), scores.t().contiguous().t()),
        "memory behind an offset": (torch.cat([ids, ids])[2:], torch.cat([scores, scores])[2:]),
    }
    for what, (row_ids, row_scores) in views.items():
        assert_same_distribution(subject.make()(row_ids, row_scores), expected, what, ids)
    try:
        narrow = subject.make()(ids.int(), scores.clone())
    except Exception:
        return  # ids of int32 may be refused, as torch refuses them as an index
    assert_same_distribution(narrow, expected, "ids of int32", ids)


def _part_of_larger(tensor: Tensor) -> Tensor:
    """Return the values as a view of every second row of a wider tensor, behind an offset."""
    rows, columns = tensor.shape
    larger = torch.zeros(2 * rows + 1, columns + 7, dtype=tensor.dtype)
    view = larger[1::2, 3 : 3 + columns]
    view.copy_(tensor)
    return view


def ignores_its_surroundings(subject: Subject) -> None:
    """The result depends neither on the thread, nor on gradient or inference mode, nor on the clock."""
    ids, scores = subject.rows(), subject.scores()
    with torch.no_grad():
        expected = subject.make()(ids, scores.clone())
    with torch.enable_grad():
        assert_same_distribution(subject.make()(ids, scores.clone()), expected, "with gradients enabled", ids)
    with torch.inference_mode():
        result = subject.make()(ids.clone(), scores.clone())
        assert_same_distribution(result, expected.clone(), "in inference mode", ids)
    with _later():
        assert_same_distribution(subject.make()(ids, scores.clone()), expected, "a day later", ids)
    here, elsewhere = subject.make(), subject.make()
    for call in (here, elsewhere):
        call(ids, scores.clone())
    again = here(ids, scores.clone())
    other = _in_another_thread(lambda: elsewhere(ids, scores.clone()))
    assert_same_distribution(other, again, "in another thread", ids)
    again = here(ids, scores.clone())
    with _later():
        assert_same_distribution(elsewhere(ids, scores.clone()), again, "used, and a day later", ids)


def _in_another_thread(work: Callable[[], Any]) -> Any:
    """Return the result of a function that another thread runs; its exception is raised here."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@contextlib.contextmanager
def _later() -> Iterator[None]:
    """Advance the clocks of the module `time` in the body: those of the calendar by `DAY`, the others by `MOMENT`."""
    originals = {name: getattr(time, name) for name in ("time", "monotonic", "perf_counter", "localtime", "gmtime")}
    exact = {name: getattr(time, f"{name}_ns") for name in ("time", "monotonic", "perf_counter")}
    now = originals["time"]
    try:
        for name, clock in exact.items():
            shift = DAY if name == "time" else MOMENT
            setattr(time, name, lambda clock=originals[name], shift=shift: clock() + shift)
            setattr(time, f"{name}_ns", lambda clock=clock, shift=shift: clock() + int(1e9 * shift))
        for name in ("localtime", "gmtime"):
            calendar = originals[name]
            setattr(time, name, lambda at=None, of=calendar: of(now() + DAY if at is None else at))
        yield
    finally:
        for name, clock in (*originals.items(), *((f"{name}_ns", clock) for name, clock in exact.items())):
            setattr(time, name, clock)


def leaves_settings_alone(subject: Subject) -> None:
    """Settings of torch, such as the default dtype, gradient mode and threads, are the same after a call as before."""
    processor = subject.make()
    with kept_settings():
        before = settings()
        processor(subject.rows(), subject.scores())
        processor(subject.rows(seed=1), subject.scores(1))
        after = settings()
    changed = ", ".join(name for name, value in before.items() if after[name] != value)
    assert not changed, f"the processor changed {changed}"


def tells_rows_apart(subject: Subject) -> None:
    """Rows that end alike, have the same tokens in another order, or are equal beside other scores are told apart."""
    used, ids, scores = subject.make(), subject.rows(), subject.scores()
    used(ids, scores.clone())
    for what, like in _similar_rows(ids).items():
        for number, changed in enumerate((subject.scores(1), scores)):
            expected = subject.make()(like, changed.clone())
            assert_same_distribution(used(like, changed.clone()), expected, f"{what}, scores {number}", like)
        both = torch.stack([ids[0], like[0]])
        single = subject.make()(both[1:], scores[1:].clone())
        assert_same_distribution(subject.make()(both, scores.clone())[1:], single, f"{what}, in one batch", both[1:])
    expected = subject.make()(ids, subject.scores(2))
    assert_same_distribution(used(ids, subject.scores(2)), expected, "the same rows with other scores", ids)
    equal = subject.make()(ids[[0, 0]], scores.clone())[1:]
    alone = subject.make()(ids[:1], scores[1:].clone())
    assert_same_distribution(equal, alone, "equal rows with other scores", ids[:1])


def _similar_rows(ids: Tensor) -> dict[str, Tensor]:
    """Return rows with the same prompts that caches with too small a key take for the given ones."""
    similar = {}
    for kept in (1, 2, 5, 8):
        like = ids.clone()
        like[:, -kept - 1] = (like[:, -kept - 1] + 19) % 251
        similar[f"rows that share their last {kept} tokens"] = like
    for kept in (0, 4):
        end = ids.shape[1] - kept
        swapped = ids.clone()
        swapped[:, [end - 2, end - 1]] = ids[:, [end - 1, end - 2]]
        similar[f"rows with two tokens exchanged before the last {kept}"] = swapped
    return similar


def returns_what_may_be_written(subject: Subject) -> None:
    """The caller may write to the returned scores, and the next result is as if the caller had not."""
    written, unwritten, ids, scores = subject.make(), subject.make(), subject.rows(), subject.scores()
    for _ in range(2):
        written(ids, scores.clone()).detach().zero_()
        unwritten(ids, scores.clone())
    expected = unwritten(ids, scores.clone())
    assert_same_distribution(written(ids, scores.clone()), expected, "after a write to the returned scores", ids)


CONTEXT_LAWS = (
    ignores_the_layout,
    ignores_its_surroundings,
    leaves_settings_alone,
    tells_rows_apart,
    returns_what_may_be_written,
)
