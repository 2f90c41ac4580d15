"""Chains with a search in the benchmark: seeds, stop texts, and the modes that a run refuses."""

from __future__ import annotations

import torch

from logitkit.bench.execution.sampling import continue_prompts, pinned_settings
from logitkit.registry.chain import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["a prompt", "two"]


def rows(
    chain: str, seeds: list[int] | None, prompts: list[str] = PROMPTS, stops: object = ()
) -> list[tuple[str, list[int]]]:
    """The continuations of six tokens under the pinned settings of the benchmark."""
    with pinned_settings(tiny_model()):
        call = Chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts)
        return continue_prompts(call, max_new_tokens=6, seeds=seeds, stops=stops)  # type: ignore[arg-type]


def test_a_row_depends_on_its_seed_alone() -> None:
    """The same seed gives the same row in any batch and after any other work; another seed gives another row."""
    first = rows("smc(3)", [5, 6])
    torch.manual_seed(123)
    assert rows("smc(3)", [6], ["two"]) == first[1:]
    assert rows("smc(3)", [5, 6]) == first != rows("smc(3)", [7, 8])


def test_greedy_tasks_seed_a_search_by_the_row() -> None:
    assert rows("smc(3) | best_of()", None) == rows("smc(3) | best_of()", None)


def test_a_row_ends_before_its_own_stop_text() -> None:
    """The stop texts of a prompt end its rows, wherever the search moves them, and no other rows."""
    free = rows("smc(4, alpha=4.0)", [1, 2])
    stop = next(letter for letter in free[1][0] if letter.isprintable() and letter not in "\ufffd ")
    stopped = rows("smc(4, alpha=4.0)", [1, 2], stops=[(), (stop,)])
    assert len(stopped[0][1]) == 6 and stop not in stopped[1][0]
