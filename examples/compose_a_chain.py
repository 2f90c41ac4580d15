"""Compose a chain: its order is what you write, whatever the model's own settings are."""

from __future__ import annotations

from typing import Any

import logitkit

PROMPT = '''def is_even(n: int) -> bool:
    """Say whether a number is even.

    >>> is_even(4)
    True
    """
'''


def main(model: Any, tokenizer: Any) -> logitkit.registry.call.Generation:
    """Sample with USCD between a temperature and a nucleus; the trace says what the gate did."""
    import torch

    torch.manual_seed(0)
    chain = logitkit.chain("temperature(0.8) | uscd(rho=0.7) | top_p(0.9)")
    return logitkit.generate(model, tokenizer, PROMPT, chain=chain, do_sample=True, max_new_tokens=32)


if __name__ == "__main__":
    from logitkit import models

    generation = main(*models.load("smollm2-135m"))
    print(generation.texts[0])
    print(generation.trace.summary())
