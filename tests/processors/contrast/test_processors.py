"""Contrast processors return exactly what the formulas return, and read no second stream at neutral values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from logitkit.processors.contrast import CAD, CFG, USCD, Contrastive, DExperts, cad, cfg, contrastive, dexperts
from reference.fixed_streams import CountedStream, logits_with_ties

IDS = torch.zeros(4, 2, dtype=torch.long)
SETTINGS = settings(max_examples=25, deadline=None)


def same(processor: Any, scores: Tensor, expected: Tensor) -> bool:
    """Whether the processor returns the expected tensor bit for bit."""
    return torch.equal(processor(IDS, scores.clone()), expected)


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.0, 1.0, 1.5, 3.0]))
@SETTINGS
def test_cfg_and_cad_equal_their_formulas(seed: int, scale: float) -> None:
    """`CFG` and `CAD` return bit for bit what `cfg` and `cad` return, at neutral values and for ties too."""
    first = logits_with_ties(seed)
    for second in (logits_with_ties(seed + 1), first.clone()):
        processor = CFG(unconditional=lambda rows, second=second: second, scale=scale)
        assert same(processor, first, cfg(first, second, scale=scale))
        amplified = CAD(without=lambda rows, second=second: second, alpha=scale)
        assert same(amplified, first, cad(first, second, alpha=scale))


@given(seed=st.integers(0, 999), beta=st.sampled_from([0.0, 0.5, 2.0]), alpha=st.sampled_from([0.01, 1.0]))
@SETTINGS
def test_contrastive_equals_its_formula(seed: int, beta: float, alpha: float) -> None:
    """`Contrastive` returns bit for bit what `contrastive` returns, at neutral values and for ties too."""
    expert = logits_with_ties(seed)
    for amateur in (logits_with_ties(seed + 1), expert.clone()):
        processor = Contrastive(amateur=lambda rows, amateur=amateur: amateur, beta=beta, alpha=alpha)
        assert same(processor, expert, contrastive(expert, amateur, beta=beta, alpha=alpha))


@given(seed=st.integers(0, 999), alpha=st.sampled_from([-1.0, 0.0, 1.0]))
@SETTINGS
def test_dexperts_equals_its_formula(seed: int, alpha: float) -> None:
    """`DExperts` returns bit for bit what `dexperts` returns, at neutral values and for equal streams too."""
    base, expert = logits_with_ties(seed), logits_with_ties(seed + 1)
    for antiexpert in (logits_with_ties(seed + 2), expert.clone()):
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
    stream, scores = CountedStream(logits_with_ties(1)), logits_with_ties(0)
    processor = make(stream)
    assert processor(IDS, scores) is scores and stream.reads == 0 and processor.streams == ()
