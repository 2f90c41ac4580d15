"""Contrast processors return exactly what the public formulas return, and read second streams only when needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from logitkit.processors.contrast import (
    CAD,
    CFG,
    USCD,
    Contrastive,
    DExperts,
    cad,
    cfg,
    confidence,
    contrastive,
    dexperts,
    uscd,
)

IDS = torch.zeros(4, 2, dtype=torch.long)
SETTINGS = settings(max_examples=25, deadline=None)


def logits(seed: int) -> Tensor:
    """Four rows of 20 logits with impossible tokens; one row is uniform and one has tied maxima."""
    generator = torch.Generator().manual_seed(seed)
    rows = 4 * torch.randn(4, 20, generator=generator)
    rows[torch.rand(4, 20, generator=generator) < 0.2] = -math.inf
    rows[:, seed % 20] = 1.0
    rows[1] = 0.0
    rows[2, :2] = rows[2].max() + 1
    return rows


class CountedStream:
    """A second stream with fixed logits that counts how often it is read."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.reads = rows, 0

    def __call__(self, input_ids: Tensor) -> Tensor:
        self.reads += 1
        return self.rows


def same(processor: Any, scores: Tensor, expected: Tensor) -> bool:
    """Whether the processor returns the expected tensor bit for bit."""
    return torch.equal(processor(IDS, scores.clone()), expected)


@given(
    seed=st.integers(0, 999),
    rho=st.sampled_from([0.0, 0.5, 1.0]),
    gate=st.sampled_from([0.0, 0.5, 1.0]),
    head=st.sampled_from([0.0, 1.0]),
    form=st.sampled_from(["diff", "ratio"]),
    measure=st.sampled_from(["norm", "max", "entropy", "margin"]),
)
@SETTINGS
def test_uscd_equals_its_formula(seed: int, **parameters: Any) -> None:
    """`USCD` returns bit for bit what `uscd` returns, at neutral values and for ties and equal streams too."""
    standard = logits(seed)
    for lame in (logits(seed + 1), standard.clone()):
        assert same(USCD(lame=lambda rows, lame=lame: lame, **parameters), standard, uscd(standard, lame, **parameters))


def test_uscd_contrasts_a_row_at_the_threshold() -> None:
    """A row whose confidence equals the gate is contrasted, by the formula and by the processor alike."""
    standard, lame = logits(0), logits(1)
    gate = float(confidence(standard)[1])  # the uniform row; all other rows are more confident
    expected = uscd(standard, lame, gate=gate)
    changed = [not torch.equal(row, before) for row, before in zip(expected, standard, strict=True)]
    assert changed == [False, True, False, False]
    assert same(USCD(lame=lambda rows: lame, gate=gate), standard, expected)


def test_uscd_leaves_rows_without_a_lame_prompt_unchanged() -> None:
    """Rows for which ``applies`` is False keep their scores; the others equal the formula."""
    standard, lame = logits(0), logits(1)
    applies = torch.tensor([True, False, True, False])
    processor = USCD(lame=lambda rows: lame, gate=1.0, applies=lambda rows: applies)
    expected = torch.where(applies[:, None], uscd(standard, lame, gate=1.0), standard)
    assert same(processor, standard, expected)


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.0, 1.0, 1.5, 3.0]))
@SETTINGS
def test_cfg_and_cad_equal_their_formulas(seed: int, scale: float) -> None:
    """`CFG` and `CAD` return bit for bit what `cfg` and `cad` return, at neutral values and for ties too."""
    first = logits(seed)
    for second in (logits(seed + 1), first.clone()):
        processor = CFG(unconditional=lambda rows, second=second: second, scale=scale)
        assert same(processor, first, cfg(first, second, scale=scale))
        amplified = CAD(without=lambda rows, second=second: second, alpha=scale)
        assert same(amplified, first, cad(first, second, alpha=scale))


@given(seed=st.integers(0, 999), beta=st.sampled_from([0.0, 0.5, 2.0]), alpha=st.sampled_from([0.01, 1.0]))
@SETTINGS
def test_contrastive_equals_its_formula(seed: int, beta: float, alpha: float) -> None:
    """`Contrastive` returns bit for bit what `contrastive` returns, at neutral values and for ties too."""
    expert = logits(seed)
    for amateur in (logits(seed + 1), expert.clone()):
        processor = Contrastive(amateur=lambda rows, amateur=amateur: amateur, beta=beta, alpha=alpha)
        assert same(processor, expert, contrastive(expert, amateur, beta=beta, alpha=alpha))


@given(seed=st.integers(0, 999), alpha=st.sampled_from([-1.0, 0.0, 1.0]))
@SETTINGS
def test_dexperts_equals_its_formula(seed: int, alpha: float) -> None:
    """`DExperts` returns bit for bit what `dexperts` returns, at neutral values and for equal streams too."""
    base, expert = logits(seed), logits(seed + 1)
    for antiexpert in (logits(seed + 2), expert.clone()):
        processor = DExperts(
            expert=lambda rows: expert, antiexpert=lambda rows, antiexpert=antiexpert: antiexpert, alpha=alpha
        )
        assert same(processor, base, dexperts(base, expert, antiexpert, alpha=alpha))


@pytest.mark.parametrize(
    "make",
    [
        lambda stream: USCD(lame=stream, rho=0.0),
        lambda stream: USCD(lame=stream, gate=0.0),
        lambda stream: CFG(unconditional=stream, scale=1.0),
        lambda stream: CAD(without=stream, alpha=0.0),
        lambda stream: Contrastive(amateur=stream, beta=0.0),
        lambda stream: DExperts(expert=stream, antiexpert=stream, alpha=0.0),
    ],
)
def test_a_neutral_processor_reads_no_second_stream(make: Callable[[Any], Any]) -> None:
    """At the neutral value the scores themselves are returned, and ``streams`` is empty."""
    stream, scores = CountedStream(logits(1)), logits(0)
    processor = make(stream)
    assert processor(IDS, scores) is scores and stream.reads == 0 and processor.streams == ()


def test_a_gate_that_fires_in_no_row_reads_no_second_stream() -> None:
    """When every row is more confident than the gate, the scores are returned and the lame stream is not read."""
    stream, scores = CountedStream(logits(1)), logits(0)
    assert USCD(lame=stream, gate=1e-6)(IDS, scores) is scores and stream.reads == 0
    USCD(lame=stream, gate=1.0)(IDS, scores)
    assert stream.reads == 1
