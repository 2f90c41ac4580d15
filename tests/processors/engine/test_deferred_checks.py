"""Deferred comparisons are read once a step, and a wrong assumption is undone."""

from __future__ import annotations

import torch

import logitkit
from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.registry.call import Call
from logitkit.registry.laws import tiny_model, tiny_tokenizer

YES, NO = torch.tensor(True), torch.tensor(False)


def test_checks_by_hand() -> None:
    """A comparison is read at once outside `collected` and inside `immediate`; inside `collected` it is kept."""
    deferred_checks, undone = DeferredChecks(), list[str]()
    assert deferred_checks.check(YES, undone.clear) and not deferred_checks.check(NO, undone.clear)
    with deferred_checks.collected() as checks:
        assert deferred_checks.check(NO, lambda: undone.append("no"))
        with deferred_checks.immediate():
            assert not deferred_checks.check(NO, undone.clear)
    assert [check.holds for check in checks.unread] == [NO] and not undone
    assert not deferred_checks.check(NO, undone.clear)


def test_a_read_takes_unread_comparisons_along() -> None:
    """After a read in the middle of a step, all comparisons so far have values; a known one is not kept again."""
    deferred_checks, undone, no = DeferredChecks(), list[str](), torch.tensor(False)
    with deferred_checks.collected(grew=YES) as checks:
        assert deferred_checks.check(no, lambda: undone.append("no"))
        assert deferred_checks.read(YES) and not deferred_checks.read(NO)
        assert deferred_checks.check(YES, undone.clear) and not deferred_checks.check(no, undone.clear)
        assert (checks.reads, checks.unread, checks.value_of(YES), checks.value_of(no)) == (2, [], True, False)
    assert checks.undo() and undone == ["no"]


def test_lines_by_hand() -> None:
    """Rows have the line of the last step where they grew; other tensors, other rows and other steps have none."""
    deferred_checks, first, second = DeferredChecks(), torch.tensor([[1]]), torch.tensor([[1, 2]])
    assert deferred_checks.line_of(first) is None
    with deferred_checks.collected(first):
        line = deferred_checks.line_of(first)
        assert line is not None and deferred_checks.line_of(first.clone()) is None
    grew = torch.tensor(True)
    with deferred_checks.collected(second, grew) as checks:
        assert deferred_checks.grew(line, second) is grew and deferred_checks.grew(None, second) is None
        with deferred_checks.immediate():
            assert deferred_checks.grew(line, second) is None
        checks.read()
    with deferred_checks.collected(second, torch.tensor(False)) as checks:
        assert deferred_checks.line_of(second) is line  # as long as the host has not read that the rows did not grow
        deferred_checks.read(YES)
        assert deferred_checks.line_of(second) is not line


def test_rows_that_were_not_continued_are_read_again() -> None:
    """A step on other rows of the same shape, as under beams, gives the scores of a fresh call and is counted once."""
    model, tokenizer = tiny_model(), tiny_tokenizer()

    def bound() -> Call:
        return logitkit.chain("cfg(2.0)").bind(model, tokenizer, ["one prompt", "a prompt"])

    call = bound()
    prompts, scores = call.prompts.ids, torch.randn(2, model.config.vocab_size)
    first = torch.cat([prompts, torch.tensor([[5], [6]])], dim=1)
    call.composite(prompts, scores)
    call.composite(first, scores)
    for ids in (
        torch.cat([prompts, torch.tensor([[6, 7], [5, 8]])], dim=1),
        torch.cat([prompts, torch.tensor([[6, 9, 1], [5, 7, 2]])], dim=1),
    ):
        torch.testing.assert_close(call.composite(ids, scores), bound().composite(ids, scores), rtol=1e-4, atol=1e-4)
    assert call.trace.calls == 4


def test_a_step_that_is_run_again_is_reported_once() -> None:
    """The reports of the run on assumed rows are dropped: one step a row, and a gate that always fires has share 1."""
    call = logitkit.chain("uscd(gate=1.0, lame='x')").bind(tiny_model(), tiny_tokenizer(), ["one", "two"])
    call.trace.recording = True
    prompts, scores, runs = call.prompts.ids, torch.randn(2, call.model.config.vocab_size), []
    record = call.trace.record
    call.trace.record = lambda *arguments: (runs.append(1), record(*arguments))[1]  # type: ignore[method-assign]
    for ids in ([], [[5], [6]], [[6, 7], [5, 8]]):  # the last rows do not continue those before
        call.composite(torch.cat([prompts, torch.tensor(ids, dtype=torch.long).reshape(2, -1)], dim=1), scores)
    assert len(runs) == 4  # the third step ran twice
    assert call.trace.fired == {"uscd": 1.0}
    assert [step.position for step in call.trace.steps] == [0, 0, 1, 1, 2, 2]
