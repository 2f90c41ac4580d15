"""Judges of divergence: whether two continuations of one text come to different results.

R2R, arXiv:2505.21600, section 3.2, asks a language model of 72 billion parameters. `ModelJudge` asks any language
model. The other judges compare texts and need no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from logitkit.processors.engine.prompts import read_prompts

_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


@dataclass(frozen=True, kw_only=True)
class ContinuationPair:
    """Two continuations of one text.

    Attributes:
        prompt: the prompt.
        before: the answer up to the token at which the models differ.
        small: the continuation that begins with the small model's token.
        large: the continuation that begins with the large model's token.

    >>> ContinuationPair(prompt="1 + 1", before="It is ", small="3", large="2").small
    '3'
    """

    prompt: str
    before: str
    small: str
    large: str


Judge = Callable[[ContinuationPair], bool]  # True: the pair is divergent


@dataclass(frozen=True)
class SameAnswer:
    """A pair is divergent when the final answers differ.

    The final answer is the last match of ``pattern``, by default a number, or the whole text without a match.
    Case, repeated spaces, thousands separators and a final full stop are ignored.

    >>> SameAnswer()(ContinuationPair(prompt="", before="", small="so it is 1,200.", large="that makes 1200"))
    False
    """

    pattern: str = _NUMBER

    def __call__(self, pair: ContinuationPair) -> bool:
        """Return whether the pair is divergent."""
        return self._answer(pair.before + pair.small) != self._answer(pair.before + pair.large)

    def _answer(self, text: str) -> str:
        """Return the normalised final answer of a text."""
        matches = re.findall(self.pattern, text)
        return " ".join((matches[-1] if matches else text).replace(",", "").lower().rstrip(". \n").split())


@dataclass(frozen=True)
class SameText:
    """A pair is divergent when the continuations differ, surrounding white space aside.

    >>> SameText()(ContinuationPair(prompt="", before="", small="the Cat", large="the cat"))
    True
    """

    def __call__(self, pair: ContinuationPair) -> bool:
        """Return whether the pair is divergent."""
        return pair.small.strip() != pair.large.strip()


class ModelJudge:
    """Ask a language model whether two continuations mean the same; divergent when "no" is more likely than "yes".

    The most likely first token of "yes", "Yes", "no" and "No" decides. A chat template of the tokenizer is used. The
    model reads the last 1000 characters of prompt and answer, and both continuations.

    Args:
        model, tokenizer: the judging model.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> judge = ModelJudge(tiny_model(), tiny_tokenizer())
    >>> judge(ContinuationPair(prompt="1 + 1", before="It is ", small="3", large="2")) in (True, False)
    True
    """

    QUESTION = (
        "Two continuations of one text follow. Do they reach the same meaning, reasoning and conclusion?\n\n"
        "Text: {before}\n\nFirst: {small}\n\nSecond: {large}\n\nAnswer with yes or no."
    )

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        answers = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("yes", "Yes", "no", "No")]
        self._first_tokens = torch.tensor([ids[0] for ids in answers])
        self._has_template = bool(getattr(tokenizer, "chat_template", None))

    @torch.no_grad()
    def __call__(self, pair: ContinuationPair) -> bool:
        """Return whether the pair is divergent."""
        text = self.QUESTION.format(before=(pair.prompt + pair.before)[-1000:], small=pair.small, large=pair.large)
        prompt: Any = [{"role": "user", "content": text}] if self._has_template else text + "\nAnswer: "
        bound = read_prompts(self.tokenizer, self.model, prompt)
        logits = self.model(bound.ids).logits[0, -1].float()[self._first_tokens]
        return bool(logits[2:].max() > logits[:2].max())
