"""Style injection: by hand, against a reference token by token, its sign, and what it must leave alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.ngram.context import NgramContext, table_of_each
from logitkit.processors.ngram.style import NgramStyle
from logitkit.processors.ngram.table import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.ngrams import counted, known_orders, lifted, literal

SIZE, SPECIAL = 10, frozenset({8, 9})
INF = math.inf
CORPUS = [[1, 2, 3, 1, 2, 4, 1, 2, 3], [3, 1, 5]]
ROWS = torch.tensor([[0, 1, 2], [2, 3, 1], [6, 6, 6], [5, 8, 2], [9, 1, 2]])
CORPORA = st.lists(st.lists(st.integers(0, 7), max_size=14), min_size=1, max_size=3).filter(any)
TEXT = "a prompt of text and the other prompt of a text, the other text of the prompt "


def table_of(
    corpus: list[list[int]] = CORPUS, orders: int = 3, smoothing: str = "kneser-ney", **more: Any
) -> NgramTable:
    """A table over ten ids, two of them special."""
    return NgramTable.count(corpus, size=SIZE, orders=orders, special=sorted(SPECIAL), smoothing=smoothing, **more)


def scores_of(seed: int, rows: int, width: int = SIZE) -> Tensor:
    """Random logits, some tokens impossible."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(rows, width, generator=generator)
    return scores.masked_fill(torch.rand(rows, width, generator=generator) < 0.1, -INF)


def test_lift_by_hand() -> None:
    """Bigrams, k = 1, weights 0 and 1: after 1, token 2 was seen 3 times and 5 once: odds of 4 and 2 at weight 1."""
    style = NgramStyle(table=table_of(orders=2), weight=1.0, k=1.0, order_weights=[0.0, 1.0])
    got = style(torch.tensor([[1]]), torch.zeros(1, SIZE)).softmax(-1)[0]
    ordinary = torch.tensor([1.0, 1, 4, 1, 1, 2, 1, 1]) / 12 * 0.8
    torch.testing.assert_close(got, torch.cat([ordinary, torch.tensor([0.1, 0.1])]))


def test_the_published_rule_penalises_what_it_favours() -> None:
    """The worked example of the sign: three orders, one count of many; seen tokens lose, unseen ones do not."""
    ids, scores = torch.tensor([[1, 2]]), torch.zeros(1, SIZE)
    table = table_of(smoothing="add-k", strength=1e-3)
    moved = NgramStyle(table=table, weight=0.1, rule="literal")(ids, scores)[0]
    first, second, third = 3 + 1e-3, 3 + 1e-3, 2 + 1e-3
    want = 0.1 * math.log(2.001 / (11 + 8e-3)) * 0
    for weight, count, total in ((0.1, 3, 12), (0.3, 2, 3), (0.6, 2, 3)):
        want += 0.1 * weight * math.log((count + 1e-3) / (total + 8 * 1e-3))
    assert first == second > third  # the counts of token 3: three alone, two after 2, two after 1 2
    torch.testing.assert_close(float(moved[3]), want, rtol=1e-5, atol=0)
    assert moved[3] < moved[7] == 0
    lift = NgramStyle(table=table, weight=0.1)(ids, scores)[0]
    assert lift[3] > lift[7]


@given(CORPORA, st.integers(1, 4), st.floats(-1, 1), st.sampled_from([1e-3, 0.5]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_lift_is_the_reference(corpus: Any, orders: int, weight: float, k: float, seed: int) -> None:
    """Token by token in float64, for a batch of rows with different contexts."""
    style = NgramStyle(table=table_of(corpus, orders), weight=weight, k=k)
    scores = scores_of(seed, len(ROWS)).masked_fill_(torch.arange(SIZE) == seed % 8, 0.5)
    got = style(ROWS, scores).double().softmax(-1)
    counts = counted(corpus, orders, SPECIAL)
    for row, logits, ours in zip(ROWS.tolist(), scores.tolist(), got.tolist(), strict=True):
        want = lifted(counts, row, logits, weight=style.weight, weights=style.order_weights, k=k, special=SPECIAL)
        assert ours == pytest.approx(want, rel=1e-4, abs=1e-7)


@given(CORPORA, st.integers(1, 4), st.floats(-1, 1), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_literal_is_the_published_rule(corpus: Any, orders: int, weight: float, seed: int) -> None:
    """Scores, not only probabilities: what was not seen keeps its logit."""
    table = table_of(corpus, orders, "add-k", strength=0.01)
    scores = scores_of(seed, len(ROWS))
    got = NgramStyle(table=table, weight=weight, rule="literal")(ROWS, scores)
    counts = counted(corpus, orders, SPECIAL)
    weights = NgramStyle(table=table).order_weights
    for row, logits, ours in zip(ROWS.tolist(), scores.tolist(), got.tolist(), strict=True):
        want = literal(counts, row, logits, weight=weight, weights=weights, k=0.01, outcomes=8)
        assert ours == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_top_keeps_the_most_frequent() -> None:
    """After 1, token 2 was seen three times and 5 once: with top = 1 only 2 moves."""
    table = table_of(orders=2)
    style = NgramStyle(table=table, weight=1.0, k=1.0, order_weights=[0.0, 1.0], top=1)
    got = style(torch.tensor([[1]]), torch.zeros(1, SIZE))[0]
    assert got[2] > got[5] == got[0]


@given(CORPORA, st.integers(0, 99), st.sampled_from(["lift", "pmi", "mixture"]), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_special_tokens_keep_their_probability(corpus: Any, seed: int, rule: Any, weight: float) -> None:
    """And a normalised row stays normalised; ids beyond the tokenizer too."""
    more = {"background": table_of([[0, 1, 2, 3, 4, 5, 6, 7]])} if rule == "pmi" else {}
    style = NgramStyle(table=table_of(corpus), weight=weight, rule=rule, **more)
    scores = scores_of(seed, len(ROWS), SIZE + 3).masked_fill_(torch.arange(SIZE + 3) == 1, 0.0).log_softmax(-1)
    got = style(ROWS, scores)
    kept = [8, 9, 10, 11, 12]
    torch.testing.assert_close(got[:, kept], scores[:, kept])
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(len(ROWS)), rtol=1e-4, atol=0)
    assert torch.equal(got == -INF, scores == -INF) or (rule == "mixture" and weight > 0.99)


@given(CORPORA, st.integers(0, 99), st.floats(0.05, 1), st.sampled_from([1e-3, 1.0]))
@settings(max_examples=40, deadline=None)
def test_unseen_tokens_never_gain_on_seen_ones(corpus: Any, seed: int, weight: float, k: float) -> None:
    """Under lift, the odds of a token that follows, against one that does not, never fall."""
    scores = scores_of(seed, len(ROWS)).masked_fill_(torch.isinf(scores_of(seed, len(ROWS))), 0.0)
    moves = NgramStyle(table=table_of(corpus), weight=weight, k=k)(ROWS, scores) - scores
    counts = counted(corpus, 3, SPECIAL)
    for row, moved in zip(ROWS.tolist(), moves, strict=True):
        seen = {token for _, following in known_orders(counts, row) for token in following}
        unseen = [token for token in range(8) if token not in seen]
        if seen and unseen:
            assert float(moved[sorted(seen)].min()) >= float(moved[unseen].max()) - 1e-5


def test_pmi_by_hand() -> None:
    """MLE unigrams: 1 has 4 of 12 in the style and 1 of 8 in the background: odds grow by 8/3; 5 loses nothing."""
    style = table_of(orders=1, smoothing="mle")
    background = table_of([[0, 1, 2, 3, 4, 5, 6, 7]], orders=1, smoothing="mle")
    got = NgramStyle(table=style, weight=1.0, rule="pmi", background=background)(
        torch.zeros(1, 0).long(), torch.zeros(1, SIZE)
    )
    odds = (got[0] - got[0, 0]).exp()
    torch.testing.assert_close(odds[[1, 2, 3, 5, 7]], torch.tensor([8 / 3, 2.0, 2.0, 1.0, 1.0]))


def test_mixture_by_hand() -> None:
    """Weight 1/2 and MLE bigrams: after 1, half of 3/4 for 2 and of 1/4 for 5, scaled to the ordinary tokens' 0.8."""
    style = NgramStyle(table=table_of(orders=2, smoothing="mle"), weight=0.5, rule="mixture", order_weights=[0.0, 1.0])
    got = style(torch.tensor([[1]]), torch.zeros(1, SIZE)).exp()[0]
    want = torch.tensor([0.05, 0.05, 0.05 + 0.3, 0.05, 0.05, 0.05 + 0.1, 0.05, 0.05, 0.1, 0.1])
    torch.testing.assert_close(got, want)


def test_a_row_of_which_the_table_says_nothing_stays() -> None:
    """Its only tokens are impossible here."""
    scores = torch.zeros(1, SIZE).masked_fill_(torch.arange(SIZE) < 7, -INF)
    for rule in ("lift", "mixture"):
        got = NgramStyle(table=table_of(), weight=0.5, rule=rule)(ROWS[:1], scores)
        torch.testing.assert_close(got.log_softmax(-1), scores.log_softmax(-1))


@pytest.mark.parametrize("rule", ["lift", "mixture", "literal"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_scores_keep_their_dtype(rule: Any, dtype: torch.dtype) -> None:
    """Worked out in float32."""
    scores = scores_of(1, len(ROWS)).to(dtype)
    style = NgramStyle(table=table_of(), weight=0.3, rule=rule)
    got = style(ROWS, scores)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), style(ROWS, scores.float()), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rule", ["lift", "mixture", "literal"])
@given(CORPORA, st.integers(0, 99), st.floats(0.001, 0.2))
@settings(max_examples=15, deadline=None)
def test_target_js_is_met(rule: Any, corpus: Any, seed: int, target: float) -> None:
    """Each row moves by the target, or by less where even the full weight does not reach it."""

    def make(**more: Any) -> NgramStyle:
        return NgramStyle(table=table_of(corpus), weight=1.0, rule=rule, **more)

    scores = scores_of(seed, len(ROWS)).masked_fill_(torch.arange(SIZE) == seed % 8, 0.5)
    got = js_bits(scores, make(target_js=target)(ROWS, scores))
    full = js_bits(scores, make()(ROWS, scores))
    for bits, most in zip(got.tolist(), full.tolist(), strict=True):
        assert bits == pytest.approx(min(target, most), rel=0.03, abs=1e-4)


def test_target_js_is_noted() -> None:
    """The strength of each row is in the trace."""
    table = NgramTable.train([TEXT], tiny_tokenizer())
    call = logitkit.chain("ngram_style('style', 1.0, target_js=0.05)").bind(
        tiny_model(), tiny_tokenizer(), ["a prompt", "text of"], trace=True, style=table
    )
    call.generate(max_new_tokens=3, do_sample=False)
    strengths = [step.notes["strength"] for step in call.trace.steps]
    assert len(strengths) == 6 and all(0 <= s <= 1 for s in strengths)
    assert all(step.js_bits < 0.051 for step in call.trace.steps)


def test_cap_and_plausible() -> None:
    """No token moves by more than the cap against those that do not move; implausible tokens do not move."""
    scores = torch.tensor([[0.0, 0, 0, 0, 0, -9, 0, 0, 0, 0]])
    ids = torch.tensor([[3, 1]])
    free = NgramStyle(table=table_of(), weight=1.0)(ids, scores)[0]
    assert free[2] - free[0] > math.log(4) and free[5] - scores[0, 5] > free[0]
    capped = NgramStyle(table=table_of(), weight=1.0, cap_bits=2.0)(ids, scores)[0]
    torch.testing.assert_close(float(capped[2] - capped[0]), math.log(4))
    gated = NgramStyle(table=table_of(), weight=1.0, plausible=0.01)(ids, scores)[0]
    torch.testing.assert_close(float(gated[5] - gated[0]), -9.0)
    torch.testing.assert_close(float(gated[2] - gated[0]), float(free[2] - free[0]), rtol=1e-5, atol=0)


def test_once_spares_what_the_row_repeats() -> None:
    """1 2 was followed by 3 already: 3 keeps its single-token evidence only, 4 gains as before."""
    ids, scores = torch.tensor([[1, 2, 3, 1, 2]]), torch.zeros(1, SIZE)
    plain = NgramStyle(table=table_of(), weight=0.5)(ids, scores)[0]
    once = NgramStyle(table=table_of(), weight=0.5, once=True)(ids, scores)[0]
    single = NgramStyle(table=table_of(orders=1), weight=0.05, order_weights=[1.0])(ids, scores)[0]
    torch.testing.assert_close(float(once[3] - once[0]), float(single[3] - single[0]))
    torch.testing.assert_close(float(once[4] - once[0]), float(plain[4] - plain[0]))
    assert plain[3] - plain[0] > once[3] - once[0]


def test_rows_of_a_context_table_see_their_own_prompt() -> None:
    """Two documents side by side: each row is moved as by its own table alone."""
    documents = [[1, 2, 3, 1, 2], [2, 1, 2, 5]]
    table = table_of_each(documents, orders=3, size=SIZE, special=sorted(SPECIAL))
    rows, scores = torch.tensor([[7, 1, 2], [7, 1, 2]]), scores_of(1, 2)
    for rule in ("lift", "mixture"):
        got = NgramContext(table=table, weight=0.5, rule=rule, groups=lambda ids: torch.arange(len(ids)))(rows, scores)
        for number, document in enumerate(documents):
            alone = NgramStyle(table=table_of([document]), weight=0.5, rule=rule)(rows[:1], scores[number : number + 1])
            torch.testing.assert_close(got[number].log_softmax(-1), alone[0].log_softmax(-1))


def test_the_prompt_is_copied() -> None:
    """With a strong weight a random model repeats the wording of its own prompt, in a padded batch too."""
    prompts = ["the code is KX-4417 and the code is KX-4417; the code is", "0123456789 is 0123456789 is 01"]
    chain = "ngram_context(1.0, order_weights=[0.0, 0.0, 3.0])"
    batch = logitkit.generate(tiny_model(), tiny_tokenizer(), prompts, chain=chain, max_new_tokens=8, do_sample=False)
    assert batch.texts == [" KX-4417", "23456789"]
    assert [
        logitkit.generate(tiny_model(), tiny_tokenizer(), p, chain=chain, max_new_tokens=8, do_sample=False).texts[0]
        for p in prompts
    ] == batch.texts


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight": 1.5}, "weight must be a finite number >= -1 and <= 1, got 1.5"),
        ({"weight": math.nan}, "weight must be a finite number"),
        ({"rule": "lifted"}, "rule must be one of 'lift', 'literal', 'pmi', 'mixture'"),
        ({"order_weights": [1.0]}, "order_weights must be 3 numbers >= 0"),
        ({"order_weights": [0.0, 0.0, 0.0]}, "not all 0"),
        ({"k": 0.0}, "k must be a finite number > 0"),
        ({"rule": "mixture", "weight": -0.1}, "weight must be from 0 to 1 for rule 'mixture'"),
        ({"rule": "pmi"}, "background must be given for rule 'pmi'"),
        ({"background": table_of()}, "background must be left out"),
        ({"rule": "mixture", "top": 3}, "top must be None for rule 'mixture'"),
        ({"target_js": 1.0}, "target_js must be a finite number > 0 and < 1"),
        ({"cap_bits": 0.0}, "cap_bits must be"),
    ],
)
def test_bad_parameters_are_refused(settings: dict[str, Any], says: str) -> None:
    """By name, rule and value."""
    with pytest.raises(ParameterError, match=says):
        NgramStyle(table=table_of(), **settings)


def test_a_table_is_checked_when_bound(tmp_path: Path) -> None:
    """No file, another tokenizer's, or no table at all: one error before the model runs."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(FileFormatError, match="must be a file; make one with logitkit train-ngram"):
        logitkit.chain(f"ngram_style({str(tmp_path / 'no')!r})").bind(model, tokenizer, "a")
    with pytest.raises(ModelError, match="trained with the generating model's tokenizer"):
        logitkit.chain("ngram_style('style')").bind(model, tokenizer, "a", style=table_of())
    with pytest.raises(ModelError, match="must be an NgramTable, got dict"):
        logitkit.chain("ngram_style('style')").bind(model, tokenizer, "a", style={})
    NgramTable.train([TEXT], tokenizer).save(tmp_path / "t.safetensors")
    chain = f"ngram_style({str(tmp_path / 't.safetensors')!r}, 0.5)"
    assert logitkit.generate(model, tokenizer, "a prompt", chain=chain, max_new_tokens=3).texts


def test_raising_the_weight_moves_towards_the_style() -> None:
    """On the tiny model: the mass on what follows in the table grows with lift and falls with literal."""
    table = NgramTable.train([TEXT], tiny_tokenizer(), smoothing="add-k", strength=1e-3)
    ids = torch.tensor(tiny_tokenizer()([TEXT[:20]])["input_ids"])
    scores = tiny_model()(ids).logits[:, -1].detach()
    follows = table.followers(3, table.contexts(ids)[:, 2])[1]

    def mass(rule: Any, weight: float) -> float:
        moved = NgramStyle(table=table, weight=weight, rule=rule)(ids, scores)
        return float(moved.softmax(-1)[0, follows].sum())

    masses = [mass("literal", w) for w in (0.9, 0.5, 0.2)] + [mass("lift", w) for w in (0.0, 0.2, 0.5, 0.9)]
    assert masses == sorted(masses) and masses[0] < masses[-1]
