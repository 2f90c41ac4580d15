"""Beam search under two constraints: a sentence of a regular expression, without some words in it."""

from __future__ import annotations

from typing import Any

import logitkit

PROMPT = "Which animal did you see? "


def main(model: Any, tokenizer: Any) -> list[str]:
    """Return the two best answers; constraints stand before truncations, and cats and dogs are banned."""
    chain = "grammar(regex='A [a-z]{3,8} with [0-9] legs[.]') | ban_phrases(['cat', 'dog'], fold_case=True) | top_k(50)"
    settings = {"num_beams": 3, "num_return_sequences": 2, "do_sample": False, "max_new_tokens": 40}
    return logitkit.generate(model, tokenizer, PROMPT, chain=chain, **settings).texts


if __name__ == "__main__":
    from logitkit import models

    print(*main(*models.load("smollm2-135m")), sep="\n")
