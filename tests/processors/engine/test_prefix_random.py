"""Pseudo-random numbers depend on the tokens of a row and the seed alone."""

from __future__ import annotations

import torch

from logitkit.processors.engine import PrefixRandom, read_prompts
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.subjects import prompts


def test_numbers_are_uniform() -> None:
    """50000 rows that differ in one token: the largest gap of the distribution function is below 1.95 / sqrt(n).

    A uniform sample exceeds that with probability 0.001; the numbers are fixed by the seed.
    """
    rows = torch.arange(50_000)[:, None] + torch.tensor([[0, 7, 0]])
    got = PrefixRandom(seed=3)(rows).sort().values
    assert float(got[0]) >= 0 and float(got[-1]) < 1
    gap = (got - (torch.arange(len(got)) + 0.5) / len(got)).abs().max()
    assert float(gap) < 1.95 / len(got) ** 0.5


def test_neighbouring_prefixes_are_unrelated() -> None:
    """The numbers of a row and of the row with one more token do not correlate: |r| < 4 / sqrt(n)."""
    rows = torch.randint(0, 300, (20_000, 12), generator=torch.Generator().manual_seed(0))
    one, two = PrefixRandom()(rows[:, :-1]), PrefixRandom()(rows)
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 4 / 20_000**0.5
    order = PrefixRandom()(rows.flip(1))
    assert abs(float(torch.corrcoef(torch.stack([two, order]))[0, 1])) < 4 / 20_000**0.5


def test_rows_and_padding_do_not_matter() -> None:
    """A row has the same number alone, in a batch, permuted and after padding; another seed changes the number."""
    tail = torch.randint(0, 256, (2, 5), generator=torch.Generator().manual_seed(0))
    numbers = []
    for padding in (0, 4):
        bound = read_prompts(tiny_tokenizer(), tiny_model(), prompts(padding))
        rows = torch.cat([bound.ids, tail], dim=1)
        chance = PrefixRandom(seed=5, prompts=bound)
        numbers.append(chance(rows))
        assert torch.equal(chance(rows[[1]]), numbers[0][[1]])
        assert torch.equal(chance(rows[[1, 0, 0]]), numbers[0][[1, 0, 0]])
    assert torch.equal(*numbers)
    assert not torch.equal(PrefixRandom(seed=6, prompts=bound)(rows), numbers[0])


def test_ids_of_int32_give_the_numbers_of_int64() -> None:
    """The numbers depend on the tokens and not on the dtype of their ids."""
    rows = torch.randint(0, 50_000, (4, 9))
    assert torch.equal(PrefixRandom(seed=3)(rows.int()), PrefixRandom(seed=3)(rows))


def test_numbers_of_tokens() -> None:
    """Uniform, unrelated between tokens and between rows, and those of a row whatever the others and their seeds."""
    rows = torch.arange(500)[:, None]
    numbers = PrefixRandom(seed=3).of_tokens(rows, 100)
    ordered = numbers.flatten().sort().values
    gap = (ordered - (torch.arange(50_000) + 0.5) / 50_000).abs().max()
    assert float(ordered[0]) > 0 and float(ordered[-1]) < 1 and float(gap) < 1.95 / 50_000**0.5
    for pair in (numbers[:, :2].T, numbers[:2]):
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / pair.shape[1] ** 0.5
    seeds = [3, -(2**63)]
    both = PrefixRandom(seed=seeds).of_tokens(rows[:2], 40)
    assert torch.equal(both[0], numbers[0, :40])
    assert torch.equal(both[1:], PrefixRandom(seed=seeds[1]).of_tokens(rows[1:2], 40))
    assert torch.equal(both[1:], PrefixRandom(seed=seeds).of_tokens(rows[:2], 40, torch.tensor([1])))
