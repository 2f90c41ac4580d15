"""Write a processor without registering it, and check it with the laws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitkit.registry.laws import check_processor


class FavourFirstTokens(LogitsProcessor):
    """Raise the scores of the first ids of the vocabulary, which in many tokenizers are the single bytes.

    Args:
        bonus: added to their scores, in nats.
        count: number of ids.
    """

    def __init__(self, bonus: float = 0.5, count: int = 256) -> None:
        self.bonus, self.count = bonus, count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores, ``[rows, vocab]``; the scores passed in are not modified."""
        bonus = torch.zeros_like(scores)
        bonus[:, : self.count] = self.bonus
        return scores + bonus


def main(model: Any, tokenizer: Any) -> str:
    """Check the processor with the laws and return a text that it generated."""
    report = check_processor(FavourFirstTokens)
    if report.failures:
        raise SystemExit("\n".join(f"{result.law}: {result.reason}" for result in report.failures))
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    processors = LogitsProcessorList([FavourFirstTokens()])
    out = model.generate(**inputs, logits_processor=processors, max_new_tokens=16, do_sample=False)
    text: str = tokenizer.decode(out[0], skip_special_tokens=True)
    return text


if __name__ == "__main__":
    from logitkit import models

    print(main(*models.load("smollm2-135m")))
