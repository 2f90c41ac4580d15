"""What a failed law says: the prefix, the token, the two values, and what usually causes it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from logitkit.registry.laws import LAWS, check_processor
from logitkit.registry.laws import comparison as compare
from logitkit.registry.laws.causes import CAUSES
from logitkit.registry.laws.comparison import LawViolatedError
from logitkit.registry.laws.subjects import subject_of

ROWS = torch.tensor([[5, 6, 7], [5, 6, 8]])


def logp(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log()


def violation(check: Any, *arguments: Any) -> LawViolatedError:
    with pytest.raises(LawViolatedError) as caught:
        check(*arguments)
    return caught.value


def test_a_difference_of_distributions() -> None:
    """By hand: in row 1 token 2 falls from 1/4 to 1/16, by ln 4, which is more than any other token moves."""
    expected = torch.stack([logp(0.5, 0.25, 0.25), logp(0.5, 0.25, 0.25)])
    actual = torch.stack([logp(0.5, 0.25, 0.25), logp(0.5, 0.4375, 0.0625)])
    error = violation(compare.assert_same_distribution, actual, expected, "used against new", ROWS)
    evidence = error.evidence
    assert (evidence.row, evidence.token, evidence.prefix) == (1, 2, (5, 6, 8))
    assert str(error) == f"used against new: up to {math.log(4):.3g} nats apart"
    assert str(evidence) == f"log-probability expected {math.log(1 / 4):.6g}, got {math.log(1 / 16):.6g}"


def test_other_impossible_tokens() -> None:
    """Of the tokens that are possible in one result alone, the most probable one is named."""
    expected, actual = logp(0.5, 0.5, 0.0, 0.0)[None], logp(0.5, 0.25, 0.2, 0.05)[None]
    evidence = violation(compare.assert_same_distribution, actual, expected, "x", ROWS[:1]).evidence
    assert (evidence.token, evidence.expected) == (2, -math.inf) and evidence.got == pytest.approx(math.log(0.2))
    json.loads(json.dumps(evidence.as_data(), allow_nan=False))
    assert evidence.as_data()["expected"] == "-inf"


def test_scores_that_are_no_scores() -> None:
    """NaN, +inf, an impossible token that became possible, and an empty row name their token."""
    before = torch.tensor([[1.0, -math.inf, 0.0]])
    for after, token in (([1.0, -math.inf, math.nan], 2), ([math.inf, -math.inf, 0], 0), ([1.0, -9.0, 0.0], 1)):
        assert violation(compare.assert_masked, before, torch.tensor([after]), "").evidence.token == token
    empty = violation(compare.assert_masked, before, torch.full((1, 3), -math.inf), "").evidence
    assert (empty.token, empty.expected, empty.got) == (0, 1.0, -math.inf)
    changed = violation(compare.assert_unchanged, before, before.index_fill(1, torch.tensor([2]), 4.0), "wrote")
    assert (changed.evidence.token, changed.evidence.expected, changed.evidence.got) == (2, 4.0, 0.0)


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=8), st.integers(0, 7), st.floats(0.01, 9))
def test_the_token_that_was_moved_is_found(scores: list[float], number: int, shift: float) -> None:
    """Whichever single score is raised, the evidence is a token whose log-probability moved most."""
    expected = torch.tensor([scores], dtype=torch.float32)
    actual = expected.clone()
    actual[0, number % len(scores)] += shift
    moved = (actual.log_softmax(-1) - expected.log_softmax(-1)).abs()[0]
    if torch.allclose(actual.log_softmax(-1), expected.log_softmax(-1), rtol=1e-4, atol=1e-4):
        compare.assert_same_distribution(actual, expected, "x")
    else:
        token = violation(compare.assert_same_distribution, actual, expected, "x").evidence.token
        assert float(moved[token]) == float(moved.max())


def test_every_law_has_a_usual_cause() -> None:
    """Each law has one sentence, which fits a line of a report."""
    assert set(CAUSES) == set(LAWS)
    assert all("\n" not in cause and len(cause) < 200 for cause in CAUSES.values())


class Counts:
    """Adds the number of earlier calls to the scores of token 3, and raises an error at the third call."""

    def __init__(self, strength: float = 2.0) -> None:
        self.calls, self.strength = 0, strength

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise KeyError("third")
        return scores.index_add(1, torch.tensor([3]), torch.full((len(scores), 1), self.strength * self.calls))


def test_a_failed_law_is_explained() -> None:
    """Reason, place, values and cause of one law; an exception of the processor names its line."""
    report = check_processor(Counts)
    assert report.given == "Counts(strength=2.0)"
    broken = {result.law: result for result in report.failures}
    reason, where, values, cause = broken["forgets"].explain()
    assert reason.startswith("used against new: up to ") and "token 3 '$', after 'the other prompt' and the" in where
    assert values.startswith("log-probability expected -") and cause.startswith("usual cause: values kept in self")
    raised = broken["depends_only_on_the_prefix"]
    assert "test_comparison.py, line " in raised.where or raised.evidence is not None
    errors = [result for result in report.failures if result.reason == "KeyError: 'third'"]
    assert errors and all('raise KeyError("third")' in result.where and not result.cause for result in errors)


def test_what_a_subject_is_given() -> None:
    """A Spec shows every parameter and the kinds of its resources, a class its defaults and what the laws supply."""
    assert subject_of("contrastive").given.endswith("; 'other' is the kind model")
    assert subject_of("cfg(2.0)").given.startswith("cfg(scale=2.0")
    top_k = subject_of("transformers:TopKLogitsWarper(top_k=5)").given
    assert top_k.startswith("transformers:TopKLogitsWarper(") and "top_k=5" in top_k and "filter_value=-inf" in top_k
    assert subject_of(lambda tokenizer: Counts()).given == "<lambda>(tokenizer=...)"
