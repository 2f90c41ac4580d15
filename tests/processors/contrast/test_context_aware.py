"""AdaCAD and COIECD: worked examples, slow references after the papers' released code, ranges and laws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.contrast import CAD, adacad, cad, coiecd
from logitkit.registry.laws import check_modes, parametrize_with_laws
from reference.fixed_streams import CountedStream, logits_with_ties

IDS = torch.zeros(4, 2, dtype=torch.long)
P, Q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.4, 0.6]]).log()


def normalised(row: list[float]) -> list[float]:
    """Return a row of logits as log-probabilities; -inf stays."""
    largest = max(row)
    total = largest + math.log(sum(math.exp(x - largest) for x in row))
    return [x - total for x in row]


def slow_adacad(p: list[float], q: list[float]) -> list[float]:
    """Return AdaCAD of one row, token by token."""
    p, q = normalised(p), normalised(q)
    middle = [(math.exp(a) + math.exp(b)) / 2 for a, b in zip(p, q, strict=True)]
    js = sum(
        math.exp(x) * (x - math.log(m)) / 2 for law in (p, q) for x, m in zip(law, middle, strict=True) if x > -math.inf
    )
    pairs = zip(p, q, strict=True)
    return normalised([a if -math.inf in (a, b) else (1 + js) * a - js * b for a, b in pairs])


def slow_coiecd(p: list[float], q: list[float], alpha: float) -> list[float]:
    """Return COIECD of one row, token by token, the shift by the entropy included."""
    p, q = normalised(p), normalised(q)
    entropy = -sum(math.exp(x) * x for x in q if x > -math.inf)
    possible = [number for number, x in enumerate(p) if x > -math.inf]
    shifted = normalised([-p[number] - entropy for number in possible])
    surprise = dict(zip(possible, shifted, strict=True))
    low, high = min(shifted) + math.log(4), max(shifted) - math.log(4)
    below = [number for number in possible if surprise[number] < low - 1e-9]
    result = []
    for number, (a, b) in enumerate(zip(p, q, strict=True)):
        if -math.inf in (a, b):
            result.append(a)
            continue
        c = (number in below and len(below) > 1) or surprise[number] > high + 1e-9
        result.append((a if c else b) + alpha * (a - b))
    return normalised(result)


def test_adacad_by_hand() -> None:
    """Rows (.6, .4) and (.4, .6) diverge by .0201 nats: log .6 - log .4 = .4055 grows by the factor 1 + 2 * .0201."""
    js = 0.6 * math.log(1.2) + 0.4 * math.log(0.8)
    odds = math.exp((1 + 2 * js) * math.log(1.5))
    assert adacad(P, Q)[0, 0].exp().item() == pytest.approx(odds / (1 + odds), abs=1e-6)
    torch.testing.assert_close(adacad(P, P), P)  # no conflict: the row itself
    disjoint = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log()
    torch.testing.assert_close(adacad(*disjoint).exp(), torch.tensor([[1.0, 0.0]]))


def test_coiecd_by_hand() -> None:
    """p = (.8, .1, .05, .05): only the first token is below, so c is 0 for it, and 1 for the three above."""
    p, q = torch.tensor([[0.8, 0.1, 0.05, 0.05]]).log(), torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    # surprises 1.25, 10, 20, 20: the bound above is 5, the bound below is 5
    want = torch.tensor([[0.5 * 0.8 / 0.5, 0.1 * 0.1 / 0.2, 0.05 * 0.05 / 0.2, 0.05 * 0.05 / 0.1]])
    torch.testing.assert_close(coiecd(p, q).exp(), want / want.sum())


@given(seed=st.integers(0, 999), alpha=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=40, deadline=None)
def test_both_equal_their_slow_references(seed: int, alpha: float) -> None:
    """Random rows with ties and impossible tokens, token by token in plain Python."""
    p, q = logits_with_ties(seed), logits_with_ties(seed + 1)
    for row in range(4):
        first, second = p[row].tolist(), q[row].tolist()
        for got, want in (
            (adacad(p, q)[row], slow_adacad(first, second)),
            (coiecd(p, q, alpha=alpha)[row], slow_coiecd(first, second, alpha)),
        ):
            torch.testing.assert_close(got, torch.tensor(want), rtol=1e-4, atol=1e-4)


def test_the_processor_takes_the_published_strengths() -> None:
    """Without alpha: .5 for cad, 1 for adacad and coiecd; the offset is a constant strength."""
    p, q = logits_with_ties(3), logits_with_ties(4)
    wanted = {"cad": cad(p, q, alpha=0.5), "adacad": adacad(p, q), "coiecd": coiecd(p, q, alpha=1.0)}
    for mode, want in wanted.items():
        assert torch.equal(CAD(without=lambda rows: q, mode=mode)(IDS, p), want)
    assert torch.equal(CAD(without=lambda rows: q, mode="adacad", offset=0.3)(IDS, p), adacad(p, q, offset=0.3))
    torch.testing.assert_close(adacad(p, p + 1, offset=0.5), cad(p, p + 1, alpha=0.5))


@pytest.mark.parametrize("mode", ["adacad", "coiecd"])
def test_strength_zero_is_off(mode: str) -> None:
    """At 0 the scores themselves are returned, and no stream is read."""
    stream, scores = CountedStream(logits_with_ties(1)), logits_with_ties(0)
    processor = CAD(without=stream, mode=mode, alpha=0.0)
    assert processor(IDS, scores) is scores and stream.reads == 0 and processor.streams == ()


def test_new_parameters_come_after_the_old_ones() -> None:
    """Chains that were written without names mean what they meant."""
    assert logitkit.chain("cad(0.6, 'the context')") == logitkit.chain("cad(alpha=0.6, context='the context')")
    assert logitkit.chain("cfg(2.0, 'negative')") == logitkit.chain("cfg(scale=2.0, negative='negative')")
    texts = ("dexperts('a', 'b', 2.0)", "dexperts(expert='a', antiexpert='b', alpha=2.0)")
    assert logitkit.chain(texts[0]) == logitkit.chain(texts[1])
    assert logitkit.chain("contrastive('a', 1.0, 0.2)") == logitkit.chain(
        "contrastive(amateur='a', beta=1.0, alpha=0.2)"
    )


def test_wrong_parameters_are_refused() -> None:
    """An offset needs adacad; the mode is one of three."""
    with pytest.raises(ParameterError, match=r"cad: offset must be 0 for a mode other than 'adacad', got 0.5"):
        CAD(without=lambda rows: P, offset=0.5)
    with pytest.raises(ParameterError, match="cad: mode must be one of 'cad', 'adacad', 'coiecd', got 'cocoa'"):
        logitkit.chain("cad(mode='cocoa', context='x')")


def variant(mode: str) -> logitkit.Spec:
    """Return the registered Spec with another mode in its example."""
    example = f"cad_{mode}(mode='{mode}', context='prompt')"
    return dataclasses.replace(logitkit.describe("cad"), name=f"cad_{mode}", example=example)


VARIANTS = [variant("adacad"), variant("coiecd")]


@parametrize_with_laws(VARIANTS)
def test_the_forms_keep_the_laws(check: Callable[[], None]) -> None:
    """AdaCAD and COIECD keep every law of a processor."""
    check()


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.name)
def test_the_forms_are_right_in_the_modes(spec: logitkit.Spec) -> None:
    """Padded batches, beams and assisted decoding equal recomputation from scratch."""
    results = check_modes(spec, ["greedy", "sampling", "beams", "left_padding", "assisted", "bf16"])
    assert all(result.right for result in results), results
