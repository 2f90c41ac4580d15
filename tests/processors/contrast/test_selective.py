"""`USCD` returns exactly what `uscd` returns, and reads the lame stream only when its gate fires."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from logitkit.processors.contrast import USCD, confidence, uscd
from reference.fixed_streams import CountedStream, logits_with_ties

IDS = torch.zeros(4, 2, dtype=torch.long)
SETTINGS = settings(max_examples=25, deadline=None)


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
    standard = logits_with_ties(seed)
    for lame in (logits_with_ties(seed + 1), standard.clone()):
        assert same(USCD(lame=lambda rows, lame=lame: lame, **parameters), standard, uscd(standard, lame, **parameters))


def test_uscd_contrasts_a_row_at_the_threshold() -> None:
    """A row whose confidence equals the gate is contrasted, by the formula and by the processor alike."""
    standard, lame = logits_with_ties(0), logits_with_ties(1)
    gate = float(confidence(standard)[1])  # the uniform row; all other rows are more confident
    expected = uscd(standard, lame, gate=gate)
    changed = [not torch.equal(row, before) for row, before in zip(expected, standard, strict=True)]
    assert changed == [False, True, False, False]
    assert same(USCD(lame=lambda rows: lame, gate=gate), standard, expected)


def test_uscd_leaves_rows_without_a_lame_prompt_unchanged() -> None:
    """Rows for which ``applies`` is False keep their scores; the others equal the formula."""
    standard, lame = logits_with_ties(0), logits_with_ties(1)
    applies = torch.tensor([True, False, True, False])
    processor = USCD(lame=lambda rows: lame, gate=1.0, applies=lambda rows: applies)
    expected = torch.where(applies[:, None], uscd(standard, lame, gate=1.0), standard)
    assert same(processor, standard, expected)


def test_a_gate_that_fires_in_no_row_reads_no_second_stream() -> None:
    """When every row is more confident than the gate, the scores are returned and the lame stream is not read."""
    stream, scores = CountedStream(logits_with_ties(1)), logits_with_ties(0)
    assert USCD(lame=stream, gate=1e-6)(IDS, scores) is scores and stream.reads == 0
    USCD(lame=stream, gate=1.0)(IDS, scores)
    assert stream.reads == 1
