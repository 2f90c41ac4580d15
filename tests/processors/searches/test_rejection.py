"""Adaptive rejection: the weight by hand and by listing every order of the tokens, and the target by enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.processors.searches.tables import (
    END,
    PROMPT,
    Runs,
    assert_shares,
    assert_unbiased,
    keeps,
    log_law,
)
from torch import Tensor

import logitkit
from logitkit.errors import ModeError, ParameterError, ScoresError
from logitkit.processors.searches import SMC
from logitkit.processors.searches.rejection import Rejected, first_viable
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def no_twice(rows: Tensor) -> Tensor:
    """`NoTwice` as a function of rows: whether no new token follows itself."""
    tails = rows[:, len(PROMPT) :]
    return ~((tails[:, 1:] == tails[:, :-1]) & (tails[:, 1:] != END)).any(-1)


def orders(p: list[float]) -> Any:
    """Yield every order in which tokens can be drawn without replacement, and its probability."""
    for order in itertools.permutations(range(len(p))):
        chance, left = 1.0, 1.0
        for token in order:
            chance, left = chance * min(1.0, p[token] / left) if left > 1e-12 else chance, left - p[token]
        yield order, chance


def slow_weight(p: list[float], order: tuple[int, ...], viable: set[int]) -> tuple[int | None, float]:
    """The recursion of arXiv:2504.05410: a rejected token multiplies what is left by 1 - q, a coin ends it."""
    multiplier, left = 1.0, 1.0
    for place, token in enumerate(order):
        q = p[token] / left
        if token in viable:
            is_last = place + 1 == len(order)
            return token, multiplier * (1.0 if is_last or order[place + 1] in viable else q)
        multiplier, left = multiplier * (1 - q), left - p[token]
    return None, 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.02, 1), min_size=1, max_size=5), st.sets(st.integers(0, 4)))
def test_the_expected_weight_of_each_token_is_its_probability(values: list[float], viable: set[int]) -> None:
    """The sum over all orders: the weight of the draws of v is p(v), and without them the sum of all is p(viable)."""
    p = [value / sum(values) for value in values]
    viable = {token for token in viable if token < len(p)}
    expected = dict.fromkeys(range(len(p)), 0.0)
    chances = dict.fromkeys(range(len(p)), 0.0)
    for order, chance in orders(p):
        mass = torch.tensor([[p[token] for token in order]], dtype=torch.float64)
        found = first_viable(mass, torch.tensor([[token in viable for token in order]]), torch.tensor([len(p)]))
        token, weight = slow_weight(p, order, viable)
        assert bool(found.settled) and float(found.weight) == pytest.approx(weight, abs=1e-9)
        if token is not None:
            assert order[int(found.place)] == token
            expected[token] += chance * weight
            chances[token] += chance
    total = sum(p[token] for token in viable)
    for token in viable:
        assert expected[token] == pytest.approx(p[token], abs=1e-9)
        assert chances[token] == pytest.approx(p[token] / total, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(1, 7))
def test_an_answer_from_the_first_tokens_is_final(viable: list[bool], tried: int) -> None:
    """The function says whether the first tokens decide a row; if they do, all tokens give the same answer."""
    count = len(viable)
    mass, tried = torch.full((1, count), 1 / count).double(), min(tried, count)
    every = first_viable(mass, torch.tensor([viable]), torch.tensor([count]))
    some = first_viable(mass[:, :tried], torch.tensor([viable[:tried]]), torch.tensor([count]))
    first = viable.index(True) if any(viable) else count
    assert bool(some.settled) == (tried >= min(first + 2, count)) and bool(every.settled)
    if some.settled:
        assert (some.place, some.weight) == (every.place, every.weight)


@pytest.mark.parametrize("masked", [False, True])
def test_the_target_is_unbiased(masked: bool) -> None:
    """By enumeration, at the false-alarm rate of `test_smc`: a predicate alone, and behind a mask."""
    gamma = {x: math.exp(v) if keeps(x) else 0.0 for x, v in log_law().items()}
    if masked:  # token 1 may not begin a text

        class Not1First:
            def allowed(self, rows: Tensor) -> Tensor:
                allowed = torch.ones(len(rows), 4, dtype=torch.bool)
                allowed[:, 1] = rows.shape[1] > len(PROMPT)
                return allowed

        gamma = {x: 0.0 if x[0] == 1 else value for x, value in gamma.items()}
        steps = [Not1First()]
    else:
        steps = []
    make: Any = lambda: Rejected(no_twice, "mine", steps)  # noqa: E731
    search = lambda: SMC(particles=48, target="constraint", make_target=make, ess=0.6)  # noqa: E731
    assert_unbiased(Runs(search, runs=800, particles=48, seed=5), gamma)


CHAIN = "smc(6, target='constraint', predicate='mine')"


def bound(chain: str = CHAIN, prompts: Any = "ab", **resources: Any) -> Any:
    """Bind a chain to the tiny model."""
    return logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts, **resources)


def one_of(texts: list[str], prompt: str = "ab") -> Any:
    """Return a predicate: whether the new tokens are the beginning of a text with its end token."""
    tokenizer = tiny_tokenizer()
    start = len(tokenizer(prompt)["input_ids"])
    allowed = {
        (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)[:length]
        for text in texts
        for length in range(1, len(tokenizer(text)["input_ids"]) + 2)
    }
    return lambda rows: [tuple(row) in allowed for row in rows[:, start:].tolist()]


def test_a_predicate_gives_the_law_of_the_mask() -> None:
    """Where 1 or 2 of 272 tokens are viable: each text has its share of the probability, as under `choices`."""
    texts = ["no", "yes", "yesterday"]
    assert_shares(bound(CHAIN.replace("6", "400"), mine=one_of(texts)), texts, 400)


def test_everything_viable_is_asked_about_twice() -> None:
    """The predicate sees two rows a token: the accepted one, and the next, for the weight, which is always 1."""
    make: Any = lambda: Rejected(lambda rows: torch.ones(len(rows), dtype=torch.bool), "mine")  # noqa: E731
    search = lambda: SMC(particles=8, target="constraint", make_target=make)  # noqa: E731
    runs = Runs(search, runs=20, particles=8, seed=1, max_new_tokens=1, eos_token_id=[0, 1, 2, 3])
    assert runs.report.notes["asked"] == 2 * 20 * 8
    assert runs.log_z.abs().max() < 1e-5


def test_one_greedy_particle_takes_the_likeliest_viable_token() -> None:
    """The tokens of greedy decoding under the mask."""
    want = logitkit.generate(
        tiny_model(), tiny_tokenizer(), "ab", "choices(['no', 'yes'])", max_new_tokens=6, do_sample=False
    )
    call = bound(CHAIN.replace("6", "1"), mine=one_of(["no", "yes"]))
    assert call.texts(call.generate(max_new_tokens=6, do_sample=False)) == want.texts


def test_particles_do_not_depend_on_other_prompts() -> None:
    """The rows of a prompt are those without the second prompt, and a seed makes them reproducible."""

    def rows(prompts: list[str]) -> list[list[int]]:
        torch.manual_seed(1)
        call = bound(prompts=prompts, mine=lambda rows: (rows[:, -1] % 3 > 0) | (rows[:, -1] == 258))
        ends = [token for token in range(272) if token % 5 == 4]
        ids = call.generate(max_new_tokens=60, num_return_sequences=6, eos_token_id=ends)
        return [call.settings.without_padding(row) for row in ids[:6, call.prompts.width :].tolist()]

    alone = rows(["ab"])
    assert alone == rows(["ab"]) == rows(["ab", "cd"]) and len({tuple(row) for row in alone}) > 1


def test_a_dead_end_is_tried_once() -> None:
    """Nothing is viable: the whole vocabulary is asked about for each row, and the error names the prompt."""
    asked = []

    def nothing(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return torch.zeros(len(rows), dtype=torch.bool)

    with pytest.raises(ScoresError, match="prompt 0 must keep a weight above 0"):
        bound(mine=nothing).generate(max_new_tokens=4)
    assert sum(asked) == 6 * 272


BAD: dict[str, Any] = {
    "one number": torch.tensor(True),
    "numbers": torch.ones(12),
    "too few": [True],
}


@pytest.mark.parametrize("answer", BAD)
def test_a_predicate_that_returns_nonsense_is_an_error(answer: str) -> None:
    with pytest.raises(ScoresError, match="mine must return True or False for each of 12 rows"):
        bound(mine=lambda rows: BAD[answer]).generate(max_new_tokens=2)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ParameterError, match="predicate must be left out for target 'power'"):
        bound("smc(4, predicate='mine')", mine=no_twice)
    with pytest.raises(ParameterError, match="predicate must be the name of a function"):
        bound(mine="no function")
    with pytest.raises(ModeError, match="mirostat must not stand behind"):
        bound(f"choices(['a']) | mirostat() | {CHAIN}", mine=no_twice)
