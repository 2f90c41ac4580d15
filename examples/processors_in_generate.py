"""Pass a chain to `model.generate` of transformers."""

from __future__ import annotations

from typing import Any

import logitkit


def main(model: Any, tokenizer: Any) -> list[str]:
    """Return continuations of two prompts, with classifier-free guidance against a negative prompt."""
    prompts = ["The moon is", "In a quiet village there lived"]
    call = logitkit.chain("cfg(scale=1.5, negative='A dull text.')").bind(model, tokenizer, prompts)
    out = model.generate(**call.inputs, logits_processor=call.processors, max_new_tokens=24, do_sample=False)
    return call.texts(out)


if __name__ == "__main__":
    from logitkit import models

    for text in main(*models.load("smollm2-135m")):
        print(text)
