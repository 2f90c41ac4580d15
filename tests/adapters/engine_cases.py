"""Prompts and chains on which engines are compared with transformers, and the expected tokens."""

from __future__ import annotations

from typing import Any

PROMPTS = [
    "The mill stood by the old bridge. In the evening, the mill",
    "Once upon a time there was a",
    "def add(a, b):\n    return",
    "The three largest cities of France are",
    "A recipe for bread: take flour, water,",
]
CORPUS = ["In a village of La Mancha there lived a gentleman of those who keep a lance in the rack."] * 3
CHAINS = [
    "",
    "ngram_style(table='TABLE', weight=0.3)",
    "ngram_context(weight=0.3)",
    "repetition_penalty(1.3) | no_repeat_ngram(3)",
    "min_new_tokens(12) | suppress_tokens([28, 30])",
    "bad_words([[260], [253, 1165]])",
    "temperature(0.7) | top_k(5) | min_p(0.1)",
    "ngram_style(table='TABLE', weight=0.2, rule='mixture') | typical_p(0.8)",
]
TOKENS, TIE = 24, 1e-3


def expected(model: str, table: str) -> dict[str, list[dict[str, Any]]]:
    """Return the tokens of transformers, with the gap between the two likeliest tokens at each place.

    Args:
        model: its folder.
        table: path that an n-gram table is written to.
    """
    import torch

    import logitkit
    from logitkit import models

    loaded, tokenizer = models.load(model)
    table_of(tokenizer, table)
    found = {}
    for chain in CHAINS:
        rows = []
        for prompt in PROMPTS:
            call = logitkit.chain(chain.replace("TABLE", table)).bind(loaded, tokenizer, prompt)
            out = call.generate(
                max_new_tokens=TOKENS, do_sample=False, output_scores=True, return_dict_in_generate=True
            )
            best = torch.stack([scores[0].log_softmax(-1).topk(2).values for scores in out.scores])
            row = out.sequences[0, call.prompts.width :].tolist()
            rows.append({"ids": row, "gaps": (best[:, 0] - best[:, 1]).tolist()})
        found[chain] = rows
    return found


def table_of(tokenizer: Any, path: str) -> None:
    """Write an n-gram table of the small corpus."""
    from logitkit.processors.ngram import NgramTable

    NgramTable.train(CORPUS, tokenizer).save(path)


def compare(got: Any, row: dict[str, Any]) -> str:
    """Return whether tokens are equal to the expected ones, different, or different at a tie."""
    for place, token in enumerate(row["ids"]):
        if place >= len(got) or got[place] != token:
            return "a tie" if row["gaps"][place] < TIE else "differs"
    return "equal" if len(got) == len(row["ids"]) else "differs"
