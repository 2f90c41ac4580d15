"""Speculative cascades under warpers: each model's law is warped by itself, and samples follow the cascade of both."""

from __future__ import annotations

import collections
import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from logitkit.processors.cascade import Cascade, SpeculativeCascade, TokenRule, rules
from logitkit.registry.laws import tiny_model

FIRST = 65  # the first of the tokens that the models of this file can write
WARPERS: dict[str, tuple[dict[str, Any], Any]] = {
    "top_k": ({"top_k": 2}, TopKLogitsWarper(2)),
    "top_p": ({"top_p": 0.75}, TopPLogitsWarper(0.75)),
    "min_p": ({"min_p": 0.4}, MinPLogitsWarper(0.4)),
    "temperature": ({"temperature": 1.5}, TemperatureLogitsWarper(1.5)),
}
SMALL, LARGE = (0.5, 0.3, 0.15, 0.05), (0.1, 0.2, 0.3, 0.4)


def constant_model(*probabilities: float) -> Any:
    """Return a model that gives these probabilities to the tokens from `FIRST` on, after every text."""
    model = copy.deepcopy(tiny_model())
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, -1e4)
    with torch.no_grad():
        head.bias[FIRST : FIRST + len(probabilities)] = torch.tensor(probabilities).log()
    model.lm_head = head
    return model


def sampled(small: Any, large: Any, rule: TokenRule, alpha: float, count: int, **settings: Any) -> list[int]:
    """Return sampled tokens, numbered from `FIRST`; after constant models they are independent."""
    cascade = SpeculativeCascade(large=large, rule=rule, alpha=alpha, draft_length=3)
    start = torch.tensor([[65, 66]])
    arguments = {"top_k": 0, "eos_token_id": None, "max_new_tokens": count, "do_sample": True} | settings
    out = small.generate(start, attention_mask=torch.ones_like(start), custom_generate=cascade, **arguments)
    return [token - FIRST for token in out[0, 2:].tolist()]


def enumerated(rule: TokenRule, alpha: float, warper: Any) -> Tensor:
    """Return pi over the four tokens: both laws warped by themselves, the rule on the unwarped laws."""
    q, p = torch.tensor([SMALL]).log(), torch.tensor([LARGE]).log()
    ids = torch.zeros(1, 1, dtype=torch.long)
    warped = [warper(ids, law.clone()).log_softmax(-1) for law in (q, p)]
    pi = rules.cascade_distribution(rule, q, p, alpha=alpha, sampling_small=warped[0], sampling_large=warped[1])
    return pi[0].exp()


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 1}, {"min_p": 0.5}])
def test_the_large_model_corrects_a_token_that_the_small_model_is_sure_of(settings: dict[str, Any]) -> None:
    """Each model gives .955 to a token of its own, and the rule rejects the small model's: the large one's is taken."""
    small, large = constant_model(0.955, 0.045), constant_model(0.045, 0.955)
    assert set(sampled(small, large, "token_v3", 0.3, 40, **settings)) == {1}


@pytest.mark.parametrize("name", WARPERS)
@pytest.mark.parametrize(("rule", "alpha"), [("token_v3", 0.3), ("token_v1", 0.15), ("opt", 0.0)])
def test_samples_follow_the_cascade_of_the_warped_laws(name: str, rule: TokenRule, alpha: float) -> None:
    """A chi-square statistic of 200 tokens, 3 degrees of freedom, stays below 21.1 (false alarms: 1 in 10,000)."""
    settings, warper = WARPERS[name]
    expected = enumerated(rule, alpha, warper)
    torch.manual_seed(0)
    counts = collections.Counter(sampled(constant_model(*SMALL), constant_model(*LARGE), rule, alpha, 200, **settings))
    assert set(counts) <= {place for place, share in enumerate(expected.tolist()) if share > 0}
    statistic = sum(
        (counts[n] - 200 * share) ** 2 / (200 * share) for n, share in enumerate(expected.tolist()) if share
    )
    assert statistic < 21.1


def test_worked_example_of_two_kept_tokens() -> None:
    """Top-k 2 keeps (.625, .375) of q and (3/7, 4/7) of p on other tokens; token_v3 rejects both of q's."""
    torch.testing.assert_close(enumerated("token_v3", 0.3, TopKLogitsWarper(2)), torch.tensor([0, 0, 3 / 7, 4 / 7]))


@pytest.mark.parametrize("rule", ["token_v3", "token_v2", "diff"])
def test_the_cascade_processor_has_the_same_law(rule: TokenRule) -> None:
    """The temperature, which both have, gives the processor the enumerated law of `SpeculativeCascade`."""
    processor = Cascade(large=lambda rows: torch.tensor([LARGE]).log(), rule=rule, alpha=0.3, temperature=1.5)
    law = processor(torch.zeros(1, 1, dtype=torch.long), torch.tensor([SMALL]).log())[0].exp()
    torch.testing.assert_close(law, enumerated(rule, 0.3, TemperatureLogitsWarper(1.5)))
