"""Write a processor with no registry at all, and check it with the laws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitkit.registry.laws import check_processor


class FavourShortTokens(LogitsProcessor):
    """Make every token of at most one byte a little likelier. Its answer depends on its arguments alone."""

    def __init__(self, bonus: float = 0.5, short: int = 256) -> None:
        self.bonus, self.short = bonus, short

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; the given ones are left alone."""
        bonus = torch.zeros_like(scores)
        bonus[:, : self.short] = self.bonus
        return scores + bonus


def main(model: Any, tokenizer: Any) -> str:
    """Check the processor, then generate with it."""
    report = check_processor(FavourShortTokens)
    if report.failures:
        raise SystemExit("\n".join(f"{verdict.law}: {verdict.why}" for verdict in report.failures))
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    processors = LogitsProcessorList([FavourShortTokens()])
    out = model.generate(**inputs, logits_processor=processors, max_new_tokens=16, do_sample=False)
    text: str = tokenizer.decode(out[0], skip_special_tokens=True)
    return text


if __name__ == "__main__":
    from logitkit import models

    print(main(*models.load("smollm2-135m")))
