"""Style injection: worked examples, a reference token by token, the sign of each rule, and what stays unchanged."""

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
from logitkit.processors.ngram import NgramStyle, NgramTable
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
    """Return a table over ten ids, of which two are special."""
    return NgramTable.count(corpus, size=SIZE, orders=orders, special=sorted(SPECIAL), smoothing=smoothing, **more)


def scores_of(seed: int, rows: int, width: int = SIZE) -> Tensor:
    """Return random logits with some impossible tokens."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(rows, width, generator=generator)
    return scores.masked_fill(torch.rand(rows, width, generator=generator) < 0.1, -INF)


def test_lift_by_hand() -> None:
    """After token 1, tokens 2 and 5 were seen 3 times and once; with k = 1 their odds grow by 4 and 2."""
    style = NgramStyle(table=table_of(orders=2), weight=1.0, k=1.0, order_weights=[0.0, 1.0])
    got = style(torch.tensor([[1]]), torch.zeros(1, SIZE)).softmax(-1)[0]
    ordinary = torch.tensor([1.0, 1, 4, 1, 1, 2, 1, 1]) / 12 * 0.8
    torch.testing.assert_close(got, torch.cat([ordinary, torch.tensor([0.1, 0.1])]))


def test_the_published_rule_penalises_what_it_favours() -> None:
    """The published rule lowers a seen token and keeps an unseen token; lift raises the seen token."""
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
    """Lift equals the reference, token by token in float64, for a batch of rows with different contexts."""
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
    """The rule ``literal`` gives the published scores; unseen tokens keep their logits."""
    table = table_of(corpus, orders, "add-k", strength=0.01)
    scores = scores_of(seed, len(ROWS))
    got = NgramStyle(table=table, weight=weight, rule="literal")(ROWS, scores)
    counts = counted(corpus, orders, SPECIAL)
    weights = NgramStyle(table=table).order_weights
    for row, logits, ours in zip(ROWS.tolist(), scores.tolist(), got.tolist(), strict=True):
        want = literal(counts, row, logits, weight=weight, weights=weights, k=0.01, outcomes=8)
        assert ours == pytest.approx(want, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell", "mle", "stupid-backoff"])
def test_literal_needs_no_smoothing_of_the_table(smoothing: str) -> None:
    """The rule ``literal`` alone gives the published scores, add-k with k = 0.001, whatever the table's smoothing."""
    scores = scores_of(3, len(ROWS))
    style = NgramStyle(table=table_of(smoothing=smoothing), weight=0.4, rule="literal")
    got, counts = style(ROWS, scores), counted(CORPUS, 3, SPECIAL)
    for row, logits, ours in zip(ROWS.tolist(), scores.tolist(), got.tolist(), strict=True):
        want = literal(counts, row, logits, weight=0.4, weights=[0.1, 0.3, 0.6], k=1e-3, outcomes=8)
        assert ours == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_literal_keeps_512_followers() -> None:
    """As published, the 512 most frequent followers of a context have evidence, and the others have none."""
    corpus = [[0, token] for token in range(1, 601)] + [[0, 600]]
    table = NgramTable.count(corpus, size=601, orders=2)
    style = NgramStyle(table=table, weight=1.0, rule="literal", order_weights=[0.0, 1.0])
    moved = style(torch.tensor([[0]]), torch.zeros(1, 601))[0] != 0
    assert int(moved.sum()) == 512 and bool(moved[600])


def test_top_keeps_the_most_frequent() -> None:
    """With top = 1 only the most frequent follower of token 1 moves."""
    table = table_of(orders=2)
    style = NgramStyle(table=table, weight=1.0, k=1.0, order_weights=[0.0, 1.0], top=1)
    got = style(torch.tensor([[1]]), torch.zeros(1, SIZE))[0]
    assert got[2] > got[5] == got[0]


@given(CORPORA, st.integers(0, 99), st.sampled_from(["lift", "pmi", "mixture"]), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_special_tokens_keep_their_probability(corpus: Any, seed: int, rule: Any, weight: float) -> None:
    """Special tokens and ids beyond the tokenizer keep their probability; a normalised row stays normalised."""
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
    """Under lift, a token that follows the context never moves less than a token that does not follow."""
    scores = scores_of(seed, len(ROWS)).masked_fill_(torch.isinf(scores_of(seed, len(ROWS))), 0.0)
    moves = NgramStyle(table=table_of(corpus), weight=weight, k=k)(ROWS, scores) - scores
    counts = counted(corpus, 3, SPECIAL)
    for row, moved in zip(ROWS.tolist(), moves, strict=True):
        seen = {token for _, following in known_orders(counts, row) for token in following}
        unseen = [token for token in range(8) if token not in seen]
        if seen and unseen:
            assert float(moved[sorted(seen)].min()) >= float(moved[unseen].max()) - 1e-5


def test_pmi_by_hand() -> None:
    """Token 1 has 4 of 12 unigrams in the style and 1 of 8 in the background, so its odds grow by 8/3; none fall."""
    style = table_of(orders=1, smoothing="mle")
    background = table_of([[0, 1, 2, 3, 4, 5, 6, 7]], orders=1, smoothing="mle")
    got = NgramStyle(table=style, weight=1.0, rule="pmi", background=background)(
        torch.zeros(1, 0).long(), torch.zeros(1, SIZE)
    )
    odds = (got[0] - got[0, 0]).exp()
    torch.testing.assert_close(odds[[1, 2, 3, 5, 7]], torch.tensor([8 / 3, 2.0, 2.0, 1.0, 1.0]))


def test_mixture_by_hand() -> None:
    """At weight 1/2, tokens 2 and 5 get half of 3/4 and of 1/4 of the mass 0.8 of the ordinary tokens."""
    style = NgramStyle(table=table_of(orders=2, smoothing="mle"), weight=0.5, rule="mixture", order_weights=[0.0, 1.0])
    got = style(torch.tensor([[1]]), torch.zeros(1, SIZE)).exp()[0]
    want = torch.tensor([0.05, 0.05, 0.05 + 0.3, 0.05, 0.05, 0.05 + 0.1, 0.05, 0.05, 0.1, 0.1])
    torch.testing.assert_close(got, want)


def test_a_row_without_evidence_is_unchanged() -> None:
    """A row in which all tokens of the table are impossible keeps its distribution."""
    scores = torch.zeros(1, SIZE).masked_fill_(torch.arange(SIZE) < 7, -INF)
    for rule in ("lift", "mixture"):
        got = NgramStyle(table=table_of(), weight=0.5, rule=rule)(ROWS[:1], scores)
        torch.testing.assert_close(got.log_softmax(-1), scores.log_softmax(-1))


@pytest.mark.parametrize("rule", ["lift", "mixture", "literal"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_scores_keep_their_dtype(rule: Any, dtype: torch.dtype) -> None:
    """The result has the dtype of the scores; it is computed in float32."""
    scores = scores_of(1, len(ROWS)).to(dtype)
    style = NgramStyle(table=table_of(), weight=0.3, rule=rule)
    got = style(ROWS, scores)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), style(ROWS, scores.float()), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rule", ["lift", "mixture", "literal"])
@given(CORPORA, st.integers(0, 99), st.floats(0.001, 0.2))
@settings(max_examples=15, deadline=None)
def test_target_js_is_met(rule: Any, corpus: Any, seed: int, target: float) -> None:
    """Each row moves by the target divergence, or by less where the full weight does not reach the target."""

    def make(**more: Any) -> NgramStyle:
        return NgramStyle(table=table_of(corpus), weight=1.0, rule=rule, **more)

    scores = scores_of(seed, len(ROWS)).masked_fill_(torch.arange(SIZE) == seed % 8, 0.5)
    got = js_bits(scores, make(target_js=target)(ROWS, scores))
    full = js_bits(scores, make()(ROWS, scores))
    for bits, most in zip(got.tolist(), full.tolist(), strict=True):
        assert bits == pytest.approx(min(target, most), rel=0.03, abs=1e-4)


def test_the_trace_contains_the_weights() -> None:
    """With target_js, the trace contains the weight of each row."""
    table = NgramTable.train([TEXT], tiny_tokenizer())
    call = logitkit.chain("ngram_style('style', 1.0, target_js=0.05)").bind(
        tiny_model(), tiny_tokenizer(), ["a prompt", "text of"], trace=True, style=table
    )
    call.generate(max_new_tokens=3, do_sample=False)
    weights = [step.notes["weight"] for step in call.trace.steps]
    assert len(weights) == 6 and all(0 <= weight <= 1 for weight in weights)
    assert all(step.js_bits < 0.051 for step in call.trace.steps)


def test_cap_and_plausible() -> None:
    """No token moves by more than the cap, and implausible tokens do not move."""
    scores = torch.tensor([[0.0, 0, 0, 0, 0, -9, 0, 0, 0, 0]])
    ids = torch.tensor([[3, 1]])
    free = NgramStyle(table=table_of(), weight=1.0)(ids, scores)[0]
    assert free[2] - free[0] > math.log(4) and free[5] - scores[0, 5] > free[0]
    capped = NgramStyle(table=table_of(), weight=1.0, cap_bits=2.0)(ids, scores)[0]
    torch.testing.assert_close(float(capped[2] - capped[0]), math.log(4))
    gated = NgramStyle(table=table_of(), weight=1.0, plausible=0.01)(ids, scores)[0]
    torch.testing.assert_close(float(gated[5] - gated[0]), -9.0)
    torch.testing.assert_close(float(gated[2] - gated[0]), float(free[2] - free[0]), rtol=1e-5, atol=0)


def test_once_removes_the_evidence_of_repeats() -> None:
    """A token that would repeat a trigram of the row keeps its single-token evidence only; other tokens gain."""
    ids, scores = torch.tensor([[1, 2, 3, 1, 2]]), torch.zeros(1, SIZE)
    plain = NgramStyle(table=table_of(), weight=0.5)(ids, scores)[0]
    once = NgramStyle(table=table_of(), weight=0.5, once=True)(ids, scores)[0]
    single = NgramStyle(table=table_of(orders=1), weight=0.05, order_weights=[1.0])(ids, scores)[0]
    torch.testing.assert_close(float(once[3] - once[0]), float(single[3] - single[0]))
    torch.testing.assert_close(float(once[4] - once[0]), float(plain[4] - plain[0]))
    assert plain[3] - plain[0] > once[3] - once[0]


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
        ({"background": table_of()}, "background must be None, because only rule 'pmi' uses one"),
        ({"rule": "mixture", "top": 3}, "top must be None for rule 'mixture'"),
        ({"target_js": 1.0}, "target_js must be a finite number > 0 and < 1"),
        ({"cap_bits": 0.0}, "cap_bits must be"),
    ],
)
def test_bad_parameters_are_refused(settings: dict[str, Any], says: str) -> None:
    """A refused value is named with its parameter and rule."""
    with pytest.raises(ParameterError, match=says):
        NgramStyle(table=table_of(), **settings)


def test_a_table_is_checked_when_bound(tmp_path: Path) -> None:
    """A missing file, a table of another tokenizer and an object that is no table are refused before the model runs."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(
        FileFormatError, match="must be a file, got: No such file or directory; make one with logitkit train-ngram"
    ):
        logitkit.chain(f"ngram_style({str(tmp_path / 'no')!r})").bind(model, tokenizer, "a")
    with pytest.raises(ModelError, match="trained with the generating model's tokenizer"):
        logitkit.chain("ngram_style('style')").bind(model, tokenizer, "a", style=table_of())
    with pytest.raises(ModelError, match=r"must be an NgramTable or a model of nltk\.lm, got dict"):
        logitkit.chain("ngram_style('style')").bind(model, tokenizer, "a", style={})
    NgramTable.train([TEXT], tokenizer).save(tmp_path / "t.safetensors")
    chain = f"ngram_style({str(tmp_path / 't.safetensors')!r}, 0.5)"
    assert logitkit.generate(model, tokenizer, "a prompt", chain=chain, max_new_tokens=3).texts


def test_raising_the_weight_moves_towards_the_style() -> None:
    """The mass of the table's followers grows with the weight under lift and falls under literal."""
    table = NgramTable.train([TEXT], tiny_tokenizer(), smoothing="add-k", strength=1e-3)
    ids = torch.tensor(tiny_tokenizer()([TEXT[:20]])["input_ids"])
    scores = tiny_model()(ids).logits[:, -1].detach()
    follows = table.followers(3, table.contexts(ids)[:, 2]).tokens

    def mass(rule: Any, weight: float) -> float:
        moved = NgramStyle(table=table, weight=weight, rule=rule)(ids, scores)
        return float(moved.softmax(-1)[0, follows].sum())

    masses = [mass("literal", w) for w in (0.9, 0.5, 0.2)] + [mass("lift", w) for w in (0.0, 0.2, 0.5, 0.9)]
    assert masses == sorted(masses) and masses[0] < masses[-1]


@settings(deadline=None, max_examples=30)
@given(
    CORPORA, st.integers(0, 10**6), st.sampled_from(["lift", "literal"]), st.sampled_from([None, 1.0]), st.booleans()
)
def test_dense_evidence_is_sparse_evidence(corpus: Any, seed: int, rule: Any, cap: float | None, once: bool) -> None:
    """Where every token has evidence of its own, as on an accelerator, rows move as where few tokens have."""
    scores = scores_of(seed, len(ROWS))
    settings = {"table": table_of(corpus), "weight": 0.7, "rule": rule, "cap_bits": cap, "once": once}
    few = NgramStyle(**settings)(ROWS, scores)
    every = NgramStyle(**settings, plausible=1e-300)(ROWS, scores)  # all possible tokens are plausible
    torch.testing.assert_close(every, few, rtol=1e-5, atol=1e-5)
