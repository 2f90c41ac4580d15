"""Choose each token with two models that have different tokenizers (the processor ``core``).

Each model reads its own tokens of the prompt and keeps its own KV cache.

Downloads gemma-3-270m (238 MB) when it is not cached.
"""

from __future__ import annotations

from typing import Any

import logitkit
from logitkit import models

PROMPT = "The capital of France is"


def main(model: Any, tokenizer: Any, other: Any, other_tokenizer: Any) -> str:
    """Return the continuation, and print the notes of the processor (the model weights) at the first steps."""
    call = logitkit.chain("core(models=['other'], align='mined')").bind(
        model, tokenizer, PROMPT, trace=True, tokenizers={"other": other_tokenizer}, other=other
    )
    output = call.generate(max_new_tokens=12, do_sample=False)
    print(call.trace.notices[0])
    for step in call.trace.steps[:3]:
        print(f"token {step.position}:", {name: round(value, 2) for name, value in step.notes.items()})
    return call.texts(output)[0]


if __name__ == "__main__":
    print(main(*models.load("smollm2-135m"), *models.load("gemma-3-270m")))
