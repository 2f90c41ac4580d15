"""Deferral rules: worked examples, properties, and equality with the equations token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.cascade import TOKEN_RULES, TokenRule, rules
from reference.speculation import cascade_by_tokens, random_distributions

INF = torch.inf
Q = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
P = torch.tensor([[0.2, 0.7, 0.1]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("rule", "alpha", "want"),
    [
        ("chow", 0.4, [0.6, 0.3, 0.1]),  # .6 >= 1 - .4
        ("chow", 0.39, [0.2, 0.7, 0.1]),
        ("diff", 0.1, [0.6, 0.3, 0.1]),  # .6 >= .7 - .1
        ("diff", 0.09, [0.2, 0.7, 0.1]),
        ("opt", 0.25, [0.6, 0.3, 0.1]),  # TV = .4: .6 >= .7 - .1
        ("opt", 0.24, [0.2, 0.7, 0.1]),
        ("token_v1", 0.2, [0.6 + 0.4 * 0.2, 0.4 * 0.7, 0.4 * 0.1]),  # A = {0}: q >= .5
        ("token_v2", 0.5, [0.6 + 0.1 * 0.2, 0.3 + 0.1 * 0.7, 0.1 * 0.1]),  # A = {0, 1}: p >= .2
        ("token_v3", 0.5, [0.7 * 0.2, 0.3 + 0.7 * 0.7, 0.7 * 0.1]),  # A = {1}: p >= .35
        ("js", 0.2, [0.6, 0.3, 0.1]),  # the divergence is .13 bits
        ("js", 0.1, [0.2, 0.7, 0.1]),
    ],
)
def test_worked_examples(rule: TokenRule, alpha: float, want: list[float]) -> None:
    """Every rule by hand for q = (.6, .3, .1) and p = (.2, .7, .1)."""
    alpha += 1e-9 if rule != "js" else 0.0  # the examples lie exactly on their thresholds
    got = rules.cascade_distribution(rule, Q, P, alpha=alpha).exp()
    torch.testing.assert_close(got, torch.tensor([want], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from([r for r in TOKEN_RULES if r != "js"]),
    alpha=st.floats(0.01, 0.99),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
@settings(deadline=None)
def test_equals_the_equations_token_by_token(seed: int, rule: TokenRule, alpha: float, temperature: float) -> None:
    """Every rule at every temperature equals the equations to 1e-12, and its distribution sums to one."""
    small, large = random_distributions(seed)
    q, p = rules.tempered(small, temperature), rules.tempered(large, temperature)
    got = rules.cascade_distribution(rule, small, large, alpha=alpha, sampling_small=q, sampling_large=p).exp()
    for r in range(len(q)):
        rows = [x[r].exp().tolist() for x in (q, p, small, large)]
        want = cascade_by_tokens(rule, rows[0], rows[1], alpha, rows[2], rows[3])
        torch.testing.assert_close(got[r], torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(got.sum(-1), torch.ones(len(q), dtype=torch.float64), rtol=0, atol=1e-12)
    assert not torch.isnan(got).any()


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(TOKEN_RULES))
@settings(deadline=None)
def test_alpha_one_is_the_small_model(seed: int, rule: TokenRule) -> None:
    """At alpha 1 pi is q bit for bit, and no rule but opt needs the large model."""
    small, large = random_distributions(seed)
    assert torch.equal(rules.cascade_distribution(rule, small, large, alpha=1.0), small)
    assert bool(rules.decided_without_large(rule, small, alpha=1.0).all()) == (rule != "opt")


@given(seed=st.integers(0, 10_000))
@settings(deadline=None)
def test_alpha_zero_is_the_large_model_under_three_rules(seed: int) -> None:
    """At alpha 0 chow is p; token_v2 and token_v3 with greedy sampling distributions are greedy p."""
    small, large = random_distributions(seed)
    assert torch.equal(rules.cascade_distribution("chow", small, large, alpha=0.0), large)
    q, p = rules.tempered(small, 0), rules.tempered(large, 0)
    token_rules: tuple[TokenRule, ...] = ("token_v2", "token_v3")
    for rule in token_rules:
        greedy = rules.cascade_distribution(rule, small, large, alpha=0.0, sampling_small=q, sampling_large=p)
        assert torch.equal(greedy.argmax(-1), large.argmax(-1))
        torch.testing.assert_close(greedy.exp(), p.exp())


@pytest.mark.parametrize("rule", ["diff", "token_v1"])
def test_diff_and_v1_are_not_lossless_at_alpha_zero(rule: TokenRule) -> None:
    """A small model that is more confident overrides the large one: q = (.9, .1), p = (.4, .6)."""
    small, large = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.4, 0.6]]).log()
    q, p = rules.tempered(small, 0), rules.tempered(large, 0)
    greedy = rules.cascade_distribution(rule, small, large, alpha=0.0, sampling_small=q, sampling_large=p)
    assert int(greedy.argmax()) == 0


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(TOKEN_RULES), alpha=st.floats(0, 1), greedy=st.booleans())
@settings(deadline=None)
def test_decided_rows_do_not_depend_on_the_large_model(seed: int, rule: TokenRule, alpha: float, greedy: bool) -> None:
    """On decided rows pi is q for every p, including all mass on the token that the small model finds least likely."""
    small, large = random_distributions(seed, scale=4.0)
    one_hot = torch.full_like(large, -INF).scatter(1, small.argmin(-1, keepdim=True), 0.0)
    q = rules.tempered(small, 0 if greedy else 1)
    rows = rules.decided_without_large(rule, small, alpha=alpha, sampling_small=q)
    for p in (large, one_hot):
        sampling = rules.tempered(p, 0 if greedy else 1)
        pi = rules.cascade_distribution(rule, small, p, alpha=alpha, sampling_small=q, sampling_large=sampling)
        assert torch.equal(pi[rows], q[rows])


def test_restriction_keeps_impossible_tokens_impossible() -> None:
    """Tokens with score -inf stay impossible; without a common possible token the result is that of the scores."""
    scores = torch.tensor([[0.0, -INF, 0.0], [-INF, 1.0, -INF]])
    logits = torch.tensor([[1.0, 9.0, 1.0], [3.0, -INF, 3.0]])
    torch.testing.assert_close(
        rules.restricted_to_support(logits, scores).exp(), torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    )


def test_replaced_rows_leave_the_others_bit_identical() -> None:
    """Replaced rows hold the other model's restricted distribution; all other rows keep the scores bit for bit."""
    scores, other = torch.tensor([[0.5, -INF, 2.0], [1.0, 0.0, 3.0]]), torch.tensor([[0.0, 5.0, 0.0], [1.0, 1.0, 1.0]])
    got = rules.replaced_rows(scores, other, torch.tensor([True, False]))
    torch.testing.assert_close(got[0].exp(), torch.tensor([0.5, 0.0, 0.5]))
    assert torch.equal(got[1], scores[1])


@pytest.mark.parametrize(("dtype", "above"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_opt_decides_equal_sides_for_the_small_model(dtype: torch.dtype, above: float) -> None:
    """For two tokens max p - TV(p, q) equals max q, which rounding must not decide; a real difference decides.

    With q = (x, 1 - x), p = (y, 1 - y) and 1/2 <= x <= y the total variation is y - x.
    """
    first = torch.arange(50, 100, dtype=torch.float64) / 100
    x, y = (side.flatten() for side in torch.meshgrid(first, first, indexing="ij"))
    x, y = x[x <= y], y[x <= y]
    small, large = (torch.stack([side, 1 - side], dim=1).log().to(dtype) for side in (x, y))
    assert bool(rules.accepted_tokens("opt", small, large, alpha=1.0).all())
    better = torch.stack([x + above, 1 - x - above], dim=1).log().to(dtype)
    small = torch.stack([x, 1 - x], dim=1).log().to(dtype)
    assert not bool(rules.accepted_tokens("opt", small, better, alpha=0.0).any())


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_ties_are_accepted(rule: TokenRule) -> None:
    """At alpha 0 both sides of each condition are equal for a certain token, and for tokens tied with the best."""
    certain = torch.tensor([[0.0, -INF]])
    assert rules.accepted_tokens(rule, certain, certain, alpha=0.0)[0, 0]
    equal = torch.tensor([[0.5, 0.5]]).log()
    want = rule != "chow"  # chow asks for a certain small model at alpha 0
    assert rules.accepted_tokens(rule, equal, equal, alpha=0.0).tolist() == [[want, want]]


@pytest.mark.parametrize(
    ("rule", "alpha", "temperature", "want"),
    [
        ("token_v1", 0.71, 1, [True, True]),  # .3 >= 1 - .71; the impossible token does not matter
        ("token_v1", 0.69, 1, [False, True]),
        ("token_v1", 0.31, 0, [True, True]),  # greedy: .7 >= 1 - .31, and no other token can be drawn
        ("token_v1", 0.29, 0, [False, True]),
        ("diff", 0.31, 1, [True, True]),  # .7 >= 1 - .31
        ("diff", 0.29, 1, [False, True]),
        ("chow", 0.29, 1, [False, True]),
        ("js", 0.99, 1, [False, False]),
        ("opt", 1.0, 1, [False, False]),
    ],
)
def test_decided_rows_by_hand(rule: TokenRule, alpha: float, temperature: float, want: list[bool]) -> None:
    """The small model has (.7, .3, 0) in the first row and is certain in the second."""
    small = torch.tensor([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]]).log()
    sampling = rules.tempered(small, temperature)
    assert rules.decided_without_large(rule, small, alpha=alpha, sampling_small=sampling).tolist() == want


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo(torch.float32).min, -65504.0, -1e9])
def test_a_row_that_another_model_masks_as_a_whole(mask: float) -> None:
    """Such a row shares no token with the scores and gets their distribution; other rows and offsets do not matter."""
    scores = torch.tensor([[0.0, 1.0, -torch.inf], [0.0, 1.0, 2.0]])
    logits = torch.tensor([[mask, mask, 3.0], [-1e4, mask, 1.0 - 1e4]])
    got = rules.restricted_to_support(logits, scores).exp()
    want = torch.stack([scores[0].softmax(-1), torch.tensor([0.0, -torch.inf, 1.0]).softmax(-1)])
    torch.testing.assert_close(got, want)
    if mask < torch.finfo(torch.float32).min / 4:
        whole = rules.restricted_to_support(torch.full((1, 3), mask), scores[:1]).exp()
        torch.testing.assert_close(whole, want[:1])
