"""What is taken for granted is read once, and undone where it was wrong."""

from __future__ import annotations

import torch

import logitkit
from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.registry.call import Call
from logitkit.registry.laws import tiny_model, tiny_tokenizer

YES, NO = torch.tensor(True), torch.tensor(False)


def test_claims_by_hand() -> None:
    """Read at once where nobody collects; else believed, and kept for who does."""
    deferred_checks, undone = DeferredChecks(), list[str]()
    assert deferred_checks.expect(YES, lambda: undone.append("yes")) and not deferred_checks.expect(NO, undone.clear)
    with deferred_checks.collected() as claims:
        assert deferred_checks.expect(NO, lambda: undone.append("no"))
    assert [bool(holds) for holds, _ in claims] == [False] and not undone
    assert not deferred_checks.expect(NO, undone.clear)


def test_rows_that_were_not_continued_are_read_again() -> None:
    """A step on other rows of the same shape, as beams bring: the answer of a fresh call, counted once."""
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
