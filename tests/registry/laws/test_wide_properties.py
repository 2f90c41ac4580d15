"""Each law about dtypes, lengths, batches, masks and randomness catches the processors that break it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.processors.engine.prefix_random import PrefixRandom
from logitkit.registry.laws import LAWS, check_processor, tiny_tokenizer
from logitkit.registry.laws.wide_properties import WIDE_LAWS

END = tiny_tokenizer().eos_token_id


class Honest(LogitsProcessor):
    """Keeps every law: raises the score of the token id after the last one."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter_add(1, (input_ids[:, -1:] + 1) % 250, torch.ones(len(scores), 1).to(scores))


class AlwaysSingle(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.float()


class Halves(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores[:, : scores.shape[1] // 2]


class ChangesHalfPrecision(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores if scores.dtype == torch.float32 else super().__call__(input_ids, 2 * scores)


class ChangesDouble(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return 1.1 * scores if scores.dtype == torch.float64 else scores


class MixesLongRows(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.mean(0, keepdim=True).expand_as(scores) if input_ids.shape[1] > 40 else scores


class UnmasksLongRows(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.clamp_min(-50.0) if input_ids.shape[1] > 500 else scores


class RemembersBeyondForty(Honest):
    calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += input_ids.shape[1] > 40
        return scores.index_fill(1, torch.tensor([self.calls]), 3.0) if self.calls else scores


class MixesFromTheFourth(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.cat([scores[:3], scores[3:].roll(1, 0)])


class SharesByPrompt(Honest):
    """Gives rows with the same prompt the result of the first of them."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raised = super().__call__(input_ids, scores) - scores
        same = (input_ids[:, None, :16] == input_ids[None, :, :16]).all(-1).int().argmax(-1)
        return scores + raised.nan_to_num(0.0)[same]


class LiftsTheEnd(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, torch.tensor([END]), -5.0)


class FreesTheLastTokens(Honest):
    """Makes every token possible where fewer than five are left."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        few = (scores > -torch.inf).sum(-1, keepdim=True) < 5
        return torch.where(few, 0.0, scores)


class Exponentiates(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.exp().log()


class TakesMinimumAsPossible(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.masked_fill((scores > -torch.inf) & (scores < -1e9), -1.0)


class WritesAndRestores(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores += 1.0
        result = scores.log_softmax(-1)
        scores -= 1.0
        return result


class OneBuffer(Honest):
    buffer: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        result = super().__call__(input_ids, scores)
        if self.buffer is None or self.buffer.shape != result.shape or self.buffer.dtype != result.dtype:
            self.buffer = torch.empty_like(result)
        return self.buffer.copy_(result)


class DrawsFromTorch(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + torch.rand(scores.shape)


class DrawsFromNumpy(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + float(np.random.rand()) * torch.arange(scores.shape[1])


class DrawsFromPython(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores if random.random() < 2 else scores + 1


class SeedsTheGlobalGenerator(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        torch.manual_seed(int(input_ids[0].sum()))
        return scores + torch.rand(1, scores.shape[1])


class KeepsAGenerator(Honest):
    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + torch.rand(scores.shape[1], generator=self.generator)


VILLAINS = [
    ("keeps_shape_dtype_device", AlwaysSingle),
    ("keeps_shape_dtype_device", Halves),
    ("agrees_across_dtypes", ChangesHalfPrecision),
    ("agrees_across_dtypes", ChangesDouble),
    ("holds_for_long_rows", MixesLongRows),
    ("holds_for_long_rows", UnmasksLongRows),
    ("holds_for_long_rows", RemembersBeyondForty),
    ("holds_in_large_batches", MixesFromTheFourth),
    ("holds_in_large_batches", SharesByPrompt),
    ("keeps_sparse_masks", LiftsTheEnd),
    ("keeps_sparse_masks", FreesTheLastTokens),
    ("survives_extreme_scores", Exponentiates),
    ("survives_extreme_scores", TakesMinimumAsPossible),
    ("reads_its_arguments_only", WritesAndRestores),
    ("returns_a_tensor_of_its_own", OneBuffer),
    ("draws_from_the_prefix", DrawsFromTorch),
    ("draws_from_the_prefix", DrawsFromNumpy),
    ("draws_from_the_prefix", DrawsFromPython),
    ("draws_from_the_prefix", SeedsTheGlobalGenerator),
    ("draws_from_the_prefix", KeepsAGenerator),
]


@pytest.mark.parametrize(("law", "villain"), VILLAINS, ids=[villain.__name__ for _, villain in VILLAINS])
def test_the_law_catches_its_faulty_processor(law: str, villain: Any) -> None:
    """The law that the processor is built to break fails, with a reason."""
    (result,) = check_processor(villain, laws=[law]).results
    assert not result.kept and result.reason and "Error:" not in result.reason, result.reason


def test_an_honest_processor_keeps_every_law() -> None:
    """A processor without faults keeps every law."""
    assert check_processor(Honest).failures == []


class OtherNames(Honest):
    """Names its arguments as it likes, which `generate` accepts."""

    def __call__(self, rows: Tensor, logits: Tensor) -> Tensor:
        return super().__call__(rows, logits)


class AnyArguments(Honest):
    def __call__(self, *arguments: Tensor) -> Tensor:
        return super().__call__(*arguments)


class KeywordScores(Honest):
    def __call__(self, input_ids: Tensor, *, scores: Tensor) -> Tensor:  # type: ignore[override]
        return scores


@pytest.mark.parametrize(("subject", "kept"), [(OtherNames, True), (AnyArguments, True), (KeywordScores, False)])
def test_the_law_of_two_arguments_asks_for_calls_and_not_for_names(subject: Any, kept: bool) -> None:
    """Any two positional arguments pass, as in `generate`; scores by keyword alone fail."""
    (result,) = check_processor(subject, laws=["two_argument_call"]).results
    assert result.kept == kept


class Drawn(Honest):
    """The recipe for random processors: the numbers come from the tokens of the row and a seed."""

    def __init__(self) -> None:
        self.uniform = PrefixRandom(seed=1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        lifted = (self.uniform(input_ids)[:, None] < 0.5).expand_as(scores)
        return torch.where(lifted, super().__call__(input_ids, scores), scores)


def test_numbers_from_the_prefix_keep_the_laws() -> None:
    """A processor that draws from `PrefixRandom` keeps every law but that of padding, which it is not told."""
    report = check_processor(Drawn, {"ignores_left_padding": "padding counts as text"})
    assert [result.law for result in report.failures if result.law != "ignores_left_padding"] == []


def test_every_law_has_a_doc_sentence() -> None:
    """The docstring of each law is one sentence or two, which reports and the documentation print."""
    assert all((law.__doc__ or "").strip().endswith(".") for law in LAWS.values())


def test_every_law_of_this_module_has_a_faulty_processor() -> None:
    """For each law of `wide_properties`, this module has a processor that breaks it."""
    assert {law for law, _ in VILLAINS} == {law.__name__ for law in WIDE_LAWS}
