"""Truncations by hand, against slow references that sort, and their properties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.engine import read_prompts
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.samplers import XTC, TopNSigma, p_less, tail_free, top_a, top_n_sigma, xtc
from logitkit.processors.samplers.truncation import first_tokens
from logitkit.registry.laws import tiny_model, tiny_tokenizer

YES = torch.tensor([True])
Row = list[float]
Truncation = Callable[..., Tensor]


def logits(*probabilities: float) -> Tensor:
    """Return one row with these probabilities."""
    return torch.tensor([probabilities]).log()


def kept(scores: Tensor) -> list[int]:
    """Return the possible tokens of the first row."""
    return [int(token) for token in scores[0].isfinite().nonzero()[:, 0]]


def probabilities(row: Row) -> dict[int, float]:
    """Return the probability of each possible token, in order: by descending score, then by id."""
    finite = {token: score for token, score in enumerate(row) if score > -math.inf}
    total = math.fsum(math.exp(score - max(row)) for score in finite.values())
    order = sorted(finite, key=lambda token: (-row[token], token))
    return {token: math.exp(row[token] - max(row)) / total for token in order}


def reference_xtc(row: Row, least: int, threshold: float) -> list[int]:
    """The definition: with two or more top choices, all but the last in order go."""
    p = probabilities(row)
    top = [token for token in p if p[token] >= threshold]
    left = [token for token in p if token not in top[:-1]]
    return sorted(left if len(top) >= 2 and len(left) >= least else p)


def reference_sigma(row: Row, least: int, n: float) -> list[int]:
    order = list(probabilities(row))
    mean = math.fsum(row[token] for token in order) / len(order)
    sigma = math.sqrt(math.fsum((row[token] - mean) ** 2 for token in order) / len(order))
    return sorted({*order[:least], *(token for token in order if row[token] >= max(row) - n * sigma)})


def reference_p_less(row: Row, least: int, normalized: bool) -> list[int]:
    p, width = probabilities(row), len(row)
    limit = math.fsum(value * value for value in p.values())
    limit = max(0.0, (width * limit - 1) / (width - 1)) if normalized else limit
    return sorted({*list(p)[:least], *(token for token in p if p[token] >= min(limit, max(p.values())))})


def reference_top_a(row: Row, least: int, a: float) -> list[int]:
    p = probabilities(row)
    return sorted({*list(p)[:least], *(token for token in p if p[token] >= a * max(p.values()) ** 2)})


def reference_tail_free(row: Row, least: int, z: float) -> list[int]:
    p = probabilities(row)
    values = list(p.values())
    bends = [abs(values[i] - 2 * values[i + 1] + values[i + 2]) for i in range(len(values) - 2)]
    total = math.fsum(bends)
    shares = [bend / total if total > 1e-6 else 1 / len(bends) for bend in bends]
    cut = (i for i in range(len(shares)) if math.fsum(shares[: i + 1]) > z and i >= least)
    return sorted(list(p)[: next(cut, len(p))])


CASES: list[tuple[str, Truncation, Callable[..., list[int]], dict[str, float | bool]]] = [
    ("xtc", lambda scores, **options: xtc(scores, YES, **options), reference_xtc, {"threshold": 0.0991}),
    ("xtc at 0", lambda scores, **options: xtc(scores, YES, **options), reference_xtc, {"threshold": 0.0}),
    ("top_n_sigma", top_n_sigma, reference_sigma, {"n": 1.037}),
    ("p_less", p_less, reference_p_less, {"normalized": False}),
    ("p_less normalized", p_less, reference_p_less, {"normalized": True}),
    ("top_a", top_a, reference_top_a, {"a": 0.3137}),
    ("tail_free", tail_free, reference_tail_free, {"z": 0.7713}),
]
NAMED = pytest.mark.parametrize(
    ("function", "reference", "options"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
ROWS = st.lists(
    st.one_of(st.integers(-96, 96).map(lambda eighths: eighths / 8), st.just(-math.inf)), min_size=2, max_size=9
).filter(lambda row: max(row) > -math.inf)


@NAMED
@settings(max_examples=60, deadline=None)
@given(row=ROWS, least=st.integers(1, 4))
def test_the_kept_tokens_are_those_of_the_definition(
    function: Truncation, reference: Callable[..., list[int]], options: dict[str, float | bool], row: Row, least: int
) -> None:
    """Rows with ties and masks; the reference sorts. Kept scores are bit-identical, and min_keep tokens stay."""
    scores = torch.tensor([row])
    got = function(scores, min_keep=least, **options)
    possible = [token for token, score in enumerate(row) if score > -math.inf]
    assert kept(got) == reference(row, least, **options)
    assert torch.equal(got[0, kept(got)], scores[0, kept(got)])
    assert len(kept(got)) >= min(least, len(possible))


@NAMED
def test_shifts_and_other_rows_change_nothing(
    function: Truncation, reference: Callable[..., list[int]], options: dict[str, float | bool]
) -> None:
    """A row plus a constant keeps the same tokens, and so does a row of a batch."""
    rows = 3 * torch.randn(5, 200, generator=torch.Generator().manual_seed(1))
    acts = torch.ones(5, dtype=torch.bool)
    run = (
        (lambda scores: xtc(scores, acts[: len(scores)], **options))
        if reference is reference_xtc
        else (lambda scores: function(scores, **options))
    )
    batch = run(rows).isfinite()
    assert torch.equal(run(rows + 2.0).isfinite(), batch)
    for row in range(5):
        assert torch.equal(run(rows[row : row + 1]).isfinite()[0], batch[row])
        assert kept(run(rows[row : row + 1])) == reference(rows[row].tolist(), 1, **options)


@pytest.mark.parametrize(
    ("function", "name", "values"),
    [
        (top_n_sigma, "n", [0.2, 0.5, 1.0, 2.0, 3.0]),
        (top_a, "a", [1.0, 0.5, 0.2, 0.05, 0.01]),
        (tail_free, "z", [0.3, 0.6, 0.9, 0.95, 0.99]),
    ],
)
def test_a_weaker_truncation_keeps_the_tokens_of_a_stronger_one(
    function: Truncation, name: str, values: list[float]
) -> None:
    """Kept sets grow with the parameter, up to all tokens at the neutral value."""
    rows = 3 * torch.randn(8, 100, generator=torch.Generator().manual_seed(2))
    masks = [function(rows, **{name: value}).isfinite() for value in values]
    for fewer, more in itertools.pairwise(masks):
        assert not bool((fewer & ~more).any()) and bool((more & ~fewer).any())


def test_xtc_by_hand() -> None:
    """Of .5, .3, .15 the last stays; a lone top choice of 0.9 stays; of equals, the first go."""
    assert kept(xtc(logits(0.5, 0.3, 0.15, 0.05), YES, threshold=0.1)) == [2, 3]
    assert kept(xtc(logits(0.9, 0.06, 0.04), YES, threshold=0.1)) == [0, 1, 2]
    assert kept(xtc(logits(0.25, 0.25, 0.25, 0.25), YES, threshold=0.2)) == [3]
    assert kept(xtc(logits(0.5, 0.3, 0.15, 0.05), ~YES, threshold=0.1)) == [0, 1, 2, 3]
    assert kept(xtc(logits(0.5, 0.3, 0.15, 0.05), YES, threshold=0.1, min_keep=3)) == [0, 1, 2, 3]
    assert kept(xtc(logits(0.5, 0.3, 0.15, 0.05), YES, threshold=0.1, protected=[1])) == [0, 1, 2, 3]
    assert kept(xtc(logits(0.5, 0.3, 0.15, 0.05), YES, threshold=0.1, protected=[2])) == [2, 3]


def test_top_n_sigma_divides_by_the_number_of_possible_tokens() -> None:
    """By hand: 3, 1, 0, 0 and a mask have mean 1 and variance 1.5; the sample variance would be 2."""
    row = torch.tensor([[3.0, 1.0, 0.0, 0.0, -torch.inf]])
    assert kept(top_n_sigma(row, n=1.6)) == [0]  # 3 - 1.6 * 1.2247 = 1.04
    assert kept(top_n_sigma(row, n=1.64)) == [0, 1]  # 0.9915
    assert kept(top_n_sigma(row / 7, n=1.64)) == [0, 1]
    assert kept(top_n_sigma(torch.full((1, 4), 2.0), n=0.1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [0.0, -1.0])
def test_top_n_sigma_is_off_at_zero_and_below(n: float) -> None:
    """As in llama.cpp, where -1 is the default."""
    scores = torch.randn(2, 20)
    assert TopNSigma(n=n)(torch.zeros(2, 1, dtype=torch.long), scores) is scores


@pytest.mark.parametrize("width", [1, 2, 1000, 32_000, 49_152])
@pytest.mark.parametrize("normalized", [False, True])
def test_p_less_keeps_flat_rows(width: int, normalized: bool) -> None:
    """The sum of squares in fp32 exceeds every probability of some uniform rows; all tokens stay."""
    assert len(kept(p_less(torch.zeros(1, width), normalized=normalized))) == width


def test_p_less_by_hand() -> None:
    """.25 + .16 + .01 = .42; of three tokens, (3 * .42 - 1) / 2 = .13; impossible tokens count in the width."""
    assert kept(p_less(logits(0.5, 0.4, 0.1))) == [0]
    assert kept(p_less(logits(0.5, 0.4, 0.1), normalized=True)) == [0, 1]
    assert kept(p_less(logits(0.5, 0.3, 0.2, 0.0, 0.0), normalized=True)) == [0, 1]  # (5 * .38 - 1) / 4 = .225
    assert kept(p_less(logits(0.5, 0.3, 0.2), normalized=True)) == [0, 1, 2]  # .07


def test_top_a_by_hand() -> None:
    """0.5 * 0.5 ** 2 = 0.125, and 1 * 0.5 ** 2 = 0.25."""
    assert kept(top_a(logits(0.5, 0.3, 0.15, 0.05), a=0.5)) == [0, 1, 2]
    assert kept(top_a(logits(0.5, 0.3, 0.15, 0.05), a=1.0)) == [0, 1]


def test_tail_free_by_hand() -> None:
    """Second differences .3, .05, .05 of .5, .15, .1, .1, .15: sorted .5, .15, .15, .1, .1 gives .35, .05, .05."""
    row = logits(0.5, 0.15, 0.1, 0.1, 0.15)  # shares 7/9, 1/9, 1/9
    assert kept(tail_free(row, z=0.7)) == [0]
    assert kept(tail_free(row, z=0.85)) == [0]  # 7/9 + 1/9 = .889 at place 1
    assert kept(tail_free(row, z=0.9)) == [0, 1]
    assert kept(tail_free(row, z=0.9, min_keep=3)) == [0, 1, 2, 3, 4]  # no place from 3 on
    assert kept(tail_free(logits(0.9, 0.1), z=0.0)) == [0, 1]
    assert kept(tail_free(torch.zeros(1, 6), z=0.4)) == [0]  # four equal shares: .25, .5 at place 1


def test_first_tokens_by_hand() -> None:
    """Of equal scores the smaller ids come first; more than there are is all."""
    row = torch.tensor([[1.0, 2.0, 1.0, 1.0]])
    assert first_tokens(row, 3).tolist() == [[True, True, True, False]]
    assert bool(first_tokens(row, 9).all())


def test_beams_keep_one_token_more_than_there_are_end_tokens() -> None:
    """As the truncations of transformers do; min_keep alone counts without beams."""
    told = CallSettings(tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "ab"))
    processor, scores, ids = TopNSigma(n=0.01, settings=told), torch.arange(5.0)[None], torch.tensor([[1]])
    assert kept(processor(ids, scores)) == [4]
    told.tell({"num_beams": 2, "eos_token_id": [1, 2]})
    assert kept(processor(ids, scores)) == [2, 3, 4]
    assert kept(TopNSigma(n=0.01, min_keep=4, settings=told)(ids, scores)) == [1, 2, 3, 4]


def test_the_coin_is_a_function_of_seed_and_prefix() -> None:
    """About half of 400 rows act, the same ones when asked again, and others under another seed."""
    rows = torch.randint(0, 256, (400, 6), generator=torch.Generator().manual_seed(0))
    scores = logits(0.5, 0.3, 0.2).expand(400, 3)
    make = lambda seed: logitkit.chain(f"xtc(seed={seed})").bind(tiny_model(), tiny_tokenizer(), "ab").composite  # noqa: E731
    rows[:, :2] = torch.tensor(tiny_tokenizer()("ab")["input_ids"])
    first, other = make(1), make(2)
    acted = first(rows, scores)[:, 0] == -torch.inf
    assert torch.equal(first(rows.flip(0), scores)[:, 0] == -torch.inf, acted.flip(0))
    assert 160 < int(acted.sum()) < 240  # 4 standard deviations
    assert 160 < int((acted != (other(rows, scores)[:, 0] == -torch.inf)).sum()) < 240


def test_xtc_protects_tokens_by_their_text() -> None:
    """A line break and the end token; a text that is no token is refused."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    end = tokenizer.eos_token
    line, b = (tokenizer(text)["input_ids"][0] for text in ("\n", "b"))
    scores = torch.full((1, 272), -torch.inf)
    scores[0, [line, b, 257]] = torch.tensor([0.4, 0.35, 0.25]).log()
    ids = torch.tensor(tokenizer("ab")["input_ids"])[None]
    for protect, left in (
        ([], [257]),
        (["\n"], sorted([line, b, 257])),
        (["b"], sorted([line, b, 257])),
        ([end], [257]),
    ):
        step = {"name": "xtc", "params": {"probability": 1.0, "protect": protect}}
        call = logitkit.chain([step]).bind(model, tokenizer, "ab")
        assert kept(call.composite(ids, scores)) == left
    with pytest.raises(ParameterError, match="xtc: protect must be texts that are one token each, got 'two'"):
        logitkit.chain("xtc(protect=['two'])").bind(model, tokenizer, "ab")


def test_a_chain_with_a_sampler_owns_the_order() -> None:
    """The warpers of `generate` are off, its default top_k among them."""
    call = logitkit.chain("top_n_sigma(1.0)").bind(tiny_model(), tiny_tokenizer(), "ab")
    assert call.generate_kwargs["top_k"] == 0
    assert (
        "top_k"
        not in logitkit.chain("repetition_penalty(1.2)").bind(tiny_model(), tiny_tokenizer(), "ab").generate_kwargs
    )


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_xtc_at_the_ends_of_the_probability(probability: float) -> None:
    """Never, and always: a coin lies in [0, 1)."""
    rows = torch.arange(600).view(200, 3)
    acted = XTC(probability=probability)(rows, logits(0.5, 0.3, 0.2).expand(200, 3))[:, 0] == -torch.inf
    assert bool((acted == bool(probability)).all())
