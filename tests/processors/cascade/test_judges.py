"""Judges of divergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from logitkit.processors.cascade import ContinuationPair, ModelJudge, SameAnswer, SameText
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def pair(small: str, large: str) -> ContinuationPair:
    """Return two continuations of an empty answer."""
    return ContinuationPair(prompt="?", before="", small=small, large=large)


@pytest.mark.parametrize(
    ("judge", "small", "large", "divergent"),
    [
        (SameAnswer(), "so it is 1,200.", "that makes 1200", False),
        (SameAnswer(), "so it is 12", "that makes 13", True),
        (SameAnswer(), "The  cat.", "the cat", False),
        (SameAnswer(), "The cat", "A dog", True),
        (SameAnswer(r"answer: (\w+)"), "9 answer: B", "8 answer: B", False),
        (SameText(), " the cat", "the cat ", False),
        (SameText(), "the Cat", "the cat", True),
    ],
)
def test_text_judges_by_hand(judge: Any, small: str, large: str, divergent: bool) -> None:
    """`SameAnswer` compares normalised final answers, `SameText` the continuations themselves."""
    assert judge(pair(small, large)) is divergent


def test_a_model_judge_asks_its_model() -> None:
    """The model sees both continuations; a higher logit of "no" means divergent."""
    questions: list[str] = []

    class Judge:
        config, generation_config, device = tiny_model().config, tiny_model().generation_config, tiny_model().device

        def __call__(self, ids: Any) -> Any:
            questions.append(tiny_tokenizer().decode(ids[0]))
            logits = torch.zeros(1, 1, 272)
            logits[..., tiny_tokenizer()("n")["input_ids"][0]] = 1.0 if "First: dog" in questions[-1] else -1.0
            return type("Output", (), {"logits": logits})

    judge = ModelJudge(Judge(), tiny_tokenizer())
    assert judge(pair("dog", "cat")) and not judge(pair("cat", "cat"))
    assert "Second: cat" in questions[0]
