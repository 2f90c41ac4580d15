"""The choice of a row's token: by hand, by the obvious loop, by enumeration, and whatever else is in the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitkit.processors.engine import Prompts
from logitkit.processors.engine.prefix_random import PrefixRandom
from logitkit.registry.chain import Chain
from logitkit.serving.row import Prompt, Row
from logitkit.serving.row_sampler import RowSampler, kept_share


def row_of(**settings: Any) -> Row:
    """Return a row."""
    defaults: dict[str, Any] = {"seed": 1, "temperature": 1.0, "top_p": 1.0, "new_tokens": 9}
    return Row(prompt=Prompt(value="", kind="text"), chain=Chain(), **{**defaults, **settings})


def prompts_of(ids: torch.Tensor, mask: torch.Tensor | None = None) -> Prompts:
    """Return prompts of token ids."""
    mask = torch.ones_like(ids) if mask is None else mask
    return Prompts(ids=ids, mask=mask, texts=("",) * len(ids), messages=(None,) * len(ids), adds_specials=False)


def chosen(rows: list[Row], ids: torch.Tensor, scores: torch.Tensor, prompts: Prompts | None = None) -> list[int]:
    """Return the token of each row."""
    out = RowSampler(rows, prompts or prompts_of(ids))(ids, scores)
    assert bool((out.isfinite().sum(-1) == 1).all())
    return list(out.argmax(-1).tolist())


def noise(seed: int, ids: list[int], size: int) -> list[float]:
    """Return the Gumbel noise of each token behind a row."""
    uniform = PrefixRandom(seed=seed).of_tokens(torch.tensor([ids]), size)[0].tolist()
    return [-math.log(-math.log(number)) for number in uniform]


def obvious(row: Row, ids: list[int], scores: torch.Tensor) -> int:
    """Return the token of one row, by loops over Python's numbers."""
    values = scores.double().tolist()
    if row.temperature == 0:
        return max(range(len(values)), key=lambda token: (values[token], -token))
    best = max(values)
    weights = [math.exp((value - best) / row.temperature) if value > -math.inf else 0.0 for value in values]
    share, kept = 0.0, list[int]()
    for token in sorted(range(len(values)), key=lambda token: (-weights[token], token)):
        if row.top_p < 1 and share >= row.top_p * sum(weights) - 1e-12:
            break
        kept.append(token)
        share += weights[token]
    drawn = noise(row.seed, ids, len(values))
    return max((token for token in kept if weights[token]), key=lambda token: math.log(weights[token]) + drawn[token])


def test_worked_example() -> None:
    """By hand: a share of 0.6 keeps the first two of 1/2, 1/4, 1/4; the second wins by ln 2 more noise."""
    kept = kept_share(torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log(), torch.tensor([0.6]))
    assert kept.exp().tolist() == [[0.5, 0.25, 0.0]]
    ids, scores, found = torch.tensor([[3, 4]]), torch.tensor([[0.5, 0.25, 0.25]]).log(), set()
    for seed in range(20):
        first, second, _ = noise(seed, [3, 4], 3)
        found |= {expected := int(second - first > math.log(2))}
        assert chosen([row_of(seed=seed, top_p=0.6)], ids, scores) == [expected]
    assert found == {0, 1}


@given(st.data())
def test_a_batch_chooses_as_the_obvious_loop_does_for_each_row(data: st.DataObject) -> None:
    """Rows with seeds, temperatures and shares of their own."""
    count = data.draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    ids = torch.randint(0, 9, (count, 3), generator=generator)
    scores = 2 * torch.randn(count, 7, generator=generator)
    scores[:, data.draw(st.integers(0, 6))] = -torch.inf
    rows = [
        row_of(
            seed=data.draw(st.integers(-(2**63), 2**63 - 1)),
            temperature=data.draw(st.sampled_from([0.0, 1e-9, 0.3, 1.0, 5.0])),
            top_p=data.draw(st.sampled_from([1e-9, 0.4, 0.95, 1.0])),
        )
        for _ in range(count)
    ]
    together = chosen(rows, ids, scores)
    assert together == [obvious(row, each.tolist(), own) for row, each, own in zip(rows, ids, scores, strict=True)]
    for number, row in enumerate(rows):
        assert chosen([row], ids[number : number + 1], scores[number : number + 1]) == [together[number]]


def test_padding_and_neighbours_change_nothing() -> None:
    """A row that is padded in its batch draws as it does alone."""
    scores = torch.zeros(1, 50)
    padded = prompts_of(torch.tensor([[0, 0, 5], [7, 8, 9]]), torch.tensor([[0, 0, 1], [1, 1, 1]]))
    rows = torch.tensor([[0, 0, 5, 3], [7, 8, 9, 1]])
    for seed in range(10):
        alone = chosen([row_of(seed=seed)], torch.tensor([[5, 3]]), scores, prompts_of(torch.tensor([[5]])))
        both = chosen([row_of(seed=seed), row_of(seed=99)], rows, scores.expand(2, -1), padded)
        assert both[0] == alone[0]


def test_the_shares_are_those_of_the_distribution() -> None:
    """20,000 prefixes: each count lies within five standard deviations, which fails by chance once in a million."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    ids = torch.stack([torch.arange(20000), torch.zeros(20000, dtype=torch.long)], dim=1)
    drawn = chosen([row_of()] * 20000, ids, probabilities.log().expand(20000, -1))
    counts = torch.tensor(drawn).bincount(minlength=4)
    spread = (20000 * probabilities * (1 - probabilities)).sqrt()
    assert bool(((counts - 20000 * probabilities).abs() < 5 * spread).all()), counts


def test_rounding_moves_no_improbable_tokens() -> None:
    """Logits that differ by 1e-5 give other tokens once in 10,000 draws or so, though half of the draws are rare ones.

    By one number for each row, at which the cumulative probability is read, nearly all rare draws would be others.
    """
    generator = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.tensor([8.5]), torch.zeros(5000)]).expand(300, -1)
    ids = torch.arange(300)[:, None]
    rounded = scores + 1e-5 * torch.randn(scores.shape, generator=generator)
    one, other = (torch.tensor(chosen([row_of()] * 300, ids, each)) for each in (scores, rounded))
    assert int((one > 0).sum()) > 90 and int((one != other).sum()) <= 1


@pytest.mark.parametrize("heat", [0.0, 1e-300, 1e-9, 1e300])
def test_extreme_temperatures(heat: float) -> None:
    """No nan: the coldest take the likeliest token, and the hottest draw among the possible ones."""
    scores = torch.tensor([[3.0, 1.0, -torch.inf]])
    found = {chosen([row_of(seed=seed, temperature=heat)], torch.tensor([[1]]), scores)[0] for seed in range(20)}
    assert found == ({0} if heat < 1 else {0, 1})


def test_log_probabilities_are_those_before_the_temperature() -> None:
    """By hand; impossible tokens are left out, and rows that want none have none."""
    rows = [row_of(temperature=0.0, top_logprobs=2), row_of(temperature=0.0)]
    scores = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]]).log()
    ids = torch.tensor([[1], [1]])
    sampler = RowSampler(rows, prompts_of(ids))
    sampler(ids, scores)
    score = sampler.scores_of(0)
    assert score is not None and score.token == 0 and sampler.scores_of(1) is None
    assert score.logp == pytest.approx(-0.6931472) and [token for token, _ in score.top] == [0, 1]
    sampler(ids, torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]]).log())
    assert [token for token, _ in (sampler.scores_of(0) or score).top] == [1]
