"""Let the generating model of an ensemble draft tokens, and the other model check them in one chunk (``speculate``).

The text is that of the ensemble, and the other model runs fewer forwards.

Downloads gemma-3-270m (238 MB) when it is not cached.
"""

from __future__ import annotations

from typing import Any

import logitkit
from logitkit import models

PROMPT, STEPS = "The capital of France is", "ensemble(['other'])"


def main(model: Any, tokenizer: Any, other: Any, other_tokenizer: Any) -> list[str]:
    """Return the texts without and with drafts, and print the forwards of the other model."""
    texts = []
    for chain in (STEPS, f"{STEPS} | speculate(draft_length=4)"):
        call = logitkit.chain(chain).bind(model, tokenizer, PROMPT, tokenizers={"other": other_tokenizer}, other=other)
        texts += call.texts(call.generate(max_new_tokens=24, do_sample=False))
        print(chain, call.trace.forwards)
    return texts


if __name__ == "__main__":
    print(main(*models.load("smollm2-135m"), *models.load("gemma-3-270m")))
