"""Combine two models with different tokenizers byte by byte.

Each model is wrapped as a model over bytes, so both share one vocabulary of bytes. The example runs two chains: a
mixture in which one of the two models, drawn at random, writes the whole text, and contrastive decoding with the
second model as the amateur.

Downloads gemma-3-270m (238 MB) when it is not cached.
"""

from __future__ import annotations

from typing import Any

import logitkit
from logitkit import models
from logitkit.processors.byte_level import ByteModel, byte_tokenizer

PROMPT = "The capital of Fran"
CHAINS = ["byte_ensemble(models=['other'], fuse='sequence')", "contrastive(amateur='other', beta=0.3)"]


def main(model: Any, tokenizer: Any, other: Any, other_tokenizer: Any) -> list[str]:
    """Return the continuation of each chain. The prompt ends inside a word, which a model over bytes permits."""
    first = ByteModel(model, tokenizer, tolerance=1e-4)
    second = ByteModel(other, other_tokenizer, tolerance=1e-4)
    texts = []
    for chain in CHAINS:
        call = logitkit.chain(chain).bind(first, byte_tokenizer(), PROMPT, other=second)
        texts += call.texts(call.generate(max_new_tokens=24, do_sample=False))
    return texts


if __name__ == "__main__":
    print(main(*models.load("smollm2-135m"), *models.load("gemma-3-270m")))
