"""States by prefix equal a fold from the beginning, for rows in any order, and a row that grows costs one step."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.engine.prefix_states import LEAST, PrefixStates

State = tuple[int, ...]


def remembering(steps: list[int] | None = None) -> PrefixStates[State]:
    """States that are the prompt and the tokens themselves."""

    def advance(state: State, token: int) -> State:
        if steps is not None:
            steps.append(token)
        return (*state, token)

    return PrefixStates(lambda prompt: (-prompt,), advance)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 70), st.integers(0, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_any_order_of_rows(asked: list[tuple[list[int], int, int]]) -> None:
    """Rows of several lengths and prompts, repeated, shortened and permuted."""
    states = remembering()
    for prompts, length, seed in asked:
        rows = np.random.default_rng(seed).integers(0, 2, (3, 70))[[prompt % 3 for prompt in prompts], :length]
        assert states(prompts, rows) == [(-prompt, *row.tolist()) for prompt, row in zip(prompts, rows, strict=True)]


def test_a_row_that_grows_costs_one_step() -> None:
    """So do the rows of beams that change places, and a row that is several tokens behind costs these."""
    steps: list[int] = []
    states = remembering(steps)
    rows = np.arange(20).reshape(2, 10)
    states([0, 0], rows)
    steps.clear()
    states([0, 0], np.concatenate([rows[[1, 0]], [[7], [8]]], axis=1))
    assert steps == [7, 8]
    states([0, 0], np.concatenate([rows, [[1, 2, 3], [4, 5, 6]]], axis=1))
    assert steps == [7, 8, 1, 2, 3, 4, 5, 6]


def test_few_states_are_kept() -> None:
    """The number of states does not grow with the length of a text."""
    states = remembering()
    for length in range(3 * LEAST):
        states([0], np.zeros((1, length)))
    assert len(states) == LEAST
