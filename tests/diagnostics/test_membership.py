"""Scores of membership against loops over tokens, and statistics of tokens against every prefix in double precision."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitkit.diagnostics import (
    TokenStatistics,
    dc_pdd,
    membership_scores,
    min_k,
    min_k_plus_plus,
    read_membership_texts,
    token_counts,
    token_statistics,
)
from logitkit.errors import FileFormatError, ModelError, ParameterError, PromptError
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

numbers = st.lists(st.floats(-20, -0.01), min_size=1, max_size=15)
VOCAB = 7


@pytest.mark.parametrize(("model", "tokenizer"), [(tiny_model, tiny_tokenizer), (foreign_model, foreign_tokenizer)])
@pytest.mark.parametrize("positions", [2, 64])
def test_statistics_are_those_of_every_prefix(
    model: object, tokenizer: object, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prefix is read again in double precision; mean and deviation are sums over the vocabulary."""
    monkeypatch.setattr("logitkit.diagnostics.per_token.POSITIONS", positions)
    subject, spelling, text = model(), tokenizer(), "the cat sat on the mat"  # type: ignore[operator]
    found = token_statistics(subject, spelling, text)
    double = copy.deepcopy(subject).double()
    ids = spelling(text)["input_ids"]
    assert found.ids.tolist() == ids[1:]
    for place in range(1, len(ids)):
        p = double(torch.tensor([ids[:place]])).logits[0, -1].softmax(-1).tolist()
        logs = [math.log(value) for value in p]
        mean = sum(value * log for value, log in zip(p, logs, strict=True))
        spread = sum(value * (log - mean) ** 2 for value, log in zip(p, logs, strict=True))
        got = [float(column[place - 1]) for column in found[1:]]
        assert got == pytest.approx([logs[ids[place]], mean, math.sqrt(spread)], abs=1e-4)


def test_long_texts_are_cut_and_short_ones_refused() -> None:
    whole = token_statistics(tiny_model(), tiny_tokenizer(), "a text of some length")
    part = token_statistics(tiny_model(), tiny_tokenizer(), "a text of some length", max_tokens=5)
    torch.testing.assert_close(part.logp, whole.logp[:4], atol=1e-5, rtol=0)
    with pytest.raises(PromptError, match="at least two tokens"):
        token_statistics(tiny_model(), tiny_tokenizer(), "a")


def test_no_more_is_read_than_the_model_can() -> None:
    """A model with an encoder is refused; a text that is longer than the context is cut there."""
    with pytest.raises(ModelError, match="token_statistics: model must be decoder-only"):
        token_statistics(encoder_decoder_model(), tiny_tokenizer(), "a text")
    short = copy.deepcopy(tiny_model())
    short.config.max_position_embeddings = 6
    assert len(token_statistics(short, tiny_tokenizer(), "a text of some length").ids) == 5


@given(numbers, st.floats(0.01, 1))
def test_min_k_by_sorting(logp: list[float], share: float) -> None:
    count = max(1, math.floor(len(logp) * share))
    assert math.isclose(min_k(torch.tensor(logp, dtype=torch.float64), share=share), sum(sorted(logp)[:count]) / count)


@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-5, 0), st.floats(0.1, 3)), min_size=1, max_size=15))
def test_min_k_plus_plus_by_sorting(rows: list[tuple[float, float, float]]) -> None:
    logp, mean, deviation = torch.tensor(rows, dtype=torch.float64).T
    got = min_k_plus_plus(TokenStatistics(torch.zeros(len(rows)), logp, mean, deviation), share=0.3)
    count = max(1, math.floor(len(rows) * 0.3))
    lowest = sorted((a - b) / c for a, b, c in rows)[:count]
    assert math.isclose(got, sum(lowest) / count, rel_tol=1e-5, abs_tol=1e-5)


def test_certain_tokens_count_zero() -> None:
    """By hand: where the model is certain of a token, log-probability, mean and deviation are 0."""
    logp, mean, deviation = torch.tensor([[0.0, -1.0], [0.0, -3.0], [0.0, 1.0]])
    assert min_k_plus_plus(TokenStatistics(torch.tensor([1, 2]), logp, mean, deviation), share=1.0) == 1.0


@given(st.lists(st.tuples(st.integers(0, VOCAB - 1), st.floats(-20, -0.01)), min_size=1, max_size=15), st.data())
def test_dc_pdd_by_a_loop(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 9), min_size=VOCAB, max_size=VOCAB))
    total, seen = sum(counts) + VOCAB, {}
    for token, logp in rows:
        if token not in seen:
            seen[token] = min(0.05, -math.exp(logp) * math.log((counts[token] + 1) / total))
    logp = torch.tensor([logp for _, logp in rows], dtype=torch.float64)
    statistics = TokenStatistics(torch.tensor([token for token, _ in rows]), logp, logp, logp)
    got = dc_pdd(statistics, torch.tensor(counts), clip=0.05)
    assert math.isclose(got, sum(seen.values()) / len(seen), rel_tol=1e-6, abs_tol=1e-9)


def test_all_scores_of_a_text() -> None:
    statistics = token_statistics(tiny_model(), tiny_tokenizer(), "a text")
    counts = token_counts(tiny_tokenizer(), ["a text", "and more"], tiny_model().config.vocab_size)
    assert int(counts.sum()) == sum(len(tiny_tokenizer()(text)["input_ids"]) for text in ("a text", "and more"))
    scores = membership_scores(statistics, share=1.0, counts=counts)
    assert scores["log_likelihood"] == pytest.approx(scores["min_k"]) and 0 < scores["dc_pdd"] <= 0.01


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda s: min_k(s.logp, share=0.0), "share must be a number > 0 and <= 1"),
        (lambda s: min_k_plus_plus(s, share=1.1), "share must be a number > 0 and <= 1"),
        (lambda s: dc_pdd(s, torch.ones(300), clip=0.0), "clip must be a number > 0"),
        (lambda _: token_counts(tiny_tokenizer(), [""], 300), "reference must be a text with tokens"),
    ],
)
def test_bad_parameters_are_named(call: object, rule: str) -> None:
    with pytest.raises(ParameterError, match=rule):
        call(token_statistics(tiny_model(), tiny_tokenizer(), "a text"))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n", "must hold a text, got none"),
        ("{", "line 1 of .* must be a JSON object"),
        ('{"input": "a"}', "with a text 'text'.*see --field"),
        ('{"text": 3}', "with a text 'text'"),
        ('{"text": "a", "label": 2}', "must have 0 or 1 as 'label', got 2"),
        ('{"text": "a", "label": 1}\n{"text": "b"}', "got line 2 without"),
    ],
)
def test_bad_files_are_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=message):
        read_membership_texts(path)


def test_plain_files_have_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\n\ntwo\n")
    assert [tuple(text) for text in read_membership_texts(path)] == [("one", None), ("two", None)]
