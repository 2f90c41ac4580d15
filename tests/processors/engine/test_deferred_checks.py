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
    assert [bool(check.holds) for check in checks] == [False] and not undone
    assert not deferred_checks.check(NO, undone.clear)


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
