"""Two models with different tokenizers write byte by byte: each is wrapped as a model over bytes.

Everything that needs one vocabulary then works between them: here an ensemble that is the law of one of the two
writing the whole text, and contrastive decoding with the other as the amateur.

Pulls gemma-3-270m (238 MB) when it is not cached.
"""

from __future__ import annotations

from typing import Any

import logitkit
from logitkit import models
from logitkit.processors.byte_level import ByteModel, byte_tokenizer

PROMPT = "The capital of Fran"
CHAINS = ["byte_ensemble(models=['other'], fuse='sequence')", "contrastive(amateur='other', beta=0.3)"]


def main(model: Any, tokenizer: Any, other: Any = None, other_tokenizer: Any = None) -> list[str]:
    """Return what each chain writes; the prompt may end inside a word."""
    ours = ByteModel(model, tokenizer, tolerance=1e-4)
    theirs = ByteModel(other or model, other_tokenizer or tokenizer, tolerance=1e-4)
    texts = []
    for chain in CHAINS:
        call = logitkit.chain(chain).bind(ours, byte_tokenizer(), PROMPT, other=theirs)
        texts += call.texts(call.generate(max_new_tokens=24, do_sample=False))
    return texts


if __name__ == "__main__":
    print(main(*models.load("smollm2-135m"), *models.load("gemma-3-270m")))
