"""Compose a chain. Its processors run in the written order; the sampling settings of the model are switched off."""

from __future__ import annotations

from typing import Any

import torch

import logitkit

PROMPT = '''def is_even(n: int) -> bool:
    """Say whether a number is even.

    >>> is_even(4)
    True
    """
'''


def main(model: Any, tokenizer: Any) -> logitkit.Generation:
    """Sample with a temperature, USCD and a nucleus; the trace reports how often the gate fired."""
    torch.manual_seed(0)
    chain = logitkit.chain("temperature(0.8) | uscd(rho=0.7) | top_p(0.9)")
    return logitkit.generate(model, tokenizer, PROMPT, chain=chain, do_sample=True, max_new_tokens=32)


if __name__ == "__main__":
    from logitkit import models

    generation = main(*models.load("smollm2-135m"))
    print(generation.texts[0])
    print(generation.trace.summary())
