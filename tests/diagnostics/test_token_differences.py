"""Columns of a comparison: by hand, as properties, and against loops over the vocabulary."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitkit.diagnostics import contrastive_estimate, token_differences

rows = st.lists(st.lists(st.floats(-8, 8), min_size=5, max_size=5), min_size=1, max_size=4)


def test_worked_example() -> None:
    """By hand: p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2), and the token is the first one."""
    p, q = torch.tensor([[0.5, 0.25, 0.25]]).double().log(), torch.tensor([[0.25, 0.25, 0.5]]).double().log()
    found = token_differences(p, q, torch.tensor([0]))
    bit = math.log(2)
    assert found.entropy.tolist()[0] == pytest.approx([1.5 * bit, 1.5 * bit])
    assert found.logp.tolist()[0] == pytest.approx([-bit, -2 * bit])
    assert found.rank.tolist() == [[1, 2]] and found.likeliest.tolist() == [[0, 2]]
    assert found.likeliest_p.tolist()[0] == pytest.approx([0.5, 0.5])
    assert float(found.kl) == pytest.approx(0.25 * bit) == pytest.approx(float(found.reverse_kl))
    # The mixture is (3/8, 1/4, 3/8): KL(p, m) = 1/2 log 4/3 + 1/4 log 2/3 to either side.
    assert float(found.js_bits) == pytest.approx(0.5 * math.log2(4 / 3) + 0.25 * math.log2(2 / 3))
    assert float(found.moved) == pytest.approx(0.25)
    assert found.gained_within.tolist()[0] == pytest.approx([0.0, 0.25, 0.25])  # the third token gains all
    assert found.movers.tolist()[0][0] == 2 and found.movers.tolist()[0][3] == 0
    assert found.mover_p.tolist()[0][0] == pytest.approx([0.25, 0.5])
    # q^2 / p = 1/8, 1/4 and 1, so s of the first token is 1 / 11.
    assert float(found.contrast.exp()) == pytest.approx(1 / 11)


@given(rows, rows, st.floats(0.1, 3), st.data())
def test_columns_by_loops(
    first: list[list[float]], second: list[list[float]], beta: float, data: st.DataObject
) -> None:
    """Each number again in plain Python; the models exchanged give the same JS, and KL the other way round."""
    count = min(len(first), len(second))
    ids = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    p, q = (torch.tensor(each[:count], dtype=torch.float64).log_softmax(-1) for each in (first, second))
    found = token_differences(p, q, torch.tensor(ids), beta=beta)
    swapped = token_differences(q, p, torch.tensor(ids), beta=beta)
    torch.testing.assert_close(found.js_bits, swapped.js_bits)
    torch.testing.assert_close(found.kl, swapped.reverse_kl)
    torch.testing.assert_close(found.moved, swapped.moved)
    for row, token in enumerate(ids):
        a, b = (each[row].exp().tolist() for each in (p, q))
        kl = sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))
        assert float(found.kl[row]) == pytest.approx(kl, abs=1e-9)
        assert float(found.entropy[row, 1]) == pytest.approx(-sum(y * math.log(y) for y in b))
        weights = [y ** (1 + beta) / x**beta for x, y in zip(a, b, strict=True)]
        assert float(found.contrast[row]) == pytest.approx(math.log(weights[token] / sum(weights)), abs=1e-6)
        assert int(found.rank[row, 0]) == 1 + sum(x > a[token] for x in a)
        gains = {v: b[v] - a[v] for v in range(5)}
        assert float(found.moved[row]) == pytest.approx(sum(g for g in gains.values() if g > 0), abs=1e-9)
        tied = [max(0.0, gains[v]) for v in range(5) if a[v] >= max(a) - 1e-12]
        assert min(abs(float(found.gained_within[row, 0]) - gain) for gain in tied) < 1e-9
        assert float(found.gained_within[row, 2]) == pytest.approx(float(found.moved[row]), abs=1e-9)
        assert gains[int(found.movers[row, 0])] == pytest.approx(max(gains.values()))


@given(rows)
def test_one_model_twice_differs_nowhere(logits: list[list[float]]) -> None:
    """Every divergence is 0, and the contrastive estimate is the log-probability itself."""
    scores = torch.tensor(logits)
    found = token_differences(scores, scores, torch.zeros(len(logits), dtype=torch.long))
    for column in (found.kl, found.reverse_kl, found.js_bits, found.moved, found.gained_within):
        assert float(column.abs().max()) < 1e-12
    torch.testing.assert_close(found.contrast, found.logp[:, 0])


def test_only_plausible_tokens_count() -> None:
    """By hand: of q^2 / p = 1/8, 1/4 and 1 only the last is of a token with 0.6 of the largest q; each token counts."""
    p, q = torch.tensor([0.5, 0.25, 0.25]).double().log(), torch.tensor([0.25, 0.25, 0.5]).double().log()
    assert contrastive_estimate(p, q, plausible=0.6).exp().tolist() == pytest.approx([1 / 9, 1 / 5, 1])
    # Both are sure of the first token; what neither believes decides the whole sum, and none that is plausible.
    p, q = torch.tensor([0.999, 1e-12, 1e-3]).double().log(), torch.tensor([0.999, 1e-5, 9.9e-4]).double().log()
    assert float(contrastive_estimate(p, q)[0]) < -4.6 and float(contrastive_estimate(p, q, plausible=0.01)[0]) == 0


def test_impossible_tokens() -> None:
    """By hand: what only the first model lacks is not critical, what the other lacks is; Z leaves both out."""
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]).log(), torch.tensor([0.5, 0.0, 0.5, 0.0]).log()
    assert contrastive_estimate(p, q).tolist() == [0.0, -math.inf, 0.0, -math.inf]
    found = token_differences(p[None], q[None], torch.tensor([1]))
    assert float(found.kl) == math.inf == float(found.reverse_kl) and float(found.js_bits) == pytest.approx(0.5)
    assert found.entropy.tolist()[0] == pytest.approx([math.log(2)] * 2)
    assert not any(column.isnan().any() for column in found)
