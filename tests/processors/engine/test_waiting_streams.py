"""Second streams that only gates request: read in forwards of their own until gates open often."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fakes import absolute_model, sliding_model
from fusing import PROMPTS, bound, decode
from logitkit.processors.engine import fused_streams as fusion
from logitkit.registry.laws import tiny_model

OPEN = "cfg(1.5, negative={!r}, gate={{'measure': 'max', 'below': 1.0}})"  # at every step
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sequences": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
}


@pytest.mark.parametrize("mode", ["greedy", "sequences", "beams"])
def test_a_gate_that_never_opens_costs_no_forward(mode: str) -> None:
    """Neither the second prompt is read, nor is any forward wider."""
    call = bound("uscd(gate=0.0001, lame='x')")
    decode(call, "auto", **MODES[mode])
    assert call.trace.forwards == {"lame prompt": 0}
    assert str(call.trace.fusion) == "lazy: gates opened at 0 of 12 steps"
    assert call.trace.fusion.rows_per_row == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("make", "negative"), [(tiny_model, "x"), (absolute_model, "a second prompt that is longer than the prompts are")]
)
def test_streams_join_with_what_they_read(make: Any, negative: str, mode: str) -> None:
    """After the first request all forwards compute the stream: the scores are those of separate forwards."""
    chain = OPEN.format(negative)
    call, lazy = bound(chain, make()), bound(chain, make())
    told = {**MODES[mode], "return_dict_in_generate": True, "output_scores": True}
    got, want = decode(call, "auto", **told), decode(lazy, "lazy", **told)
    assert torch.equal(got.sequences, want.sequences)
    for one, other in zip(got.scores, want.scores, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert call.trace.forwards == {"negative prompt": 1} and lazy.trace.forwards["negative prompt"] >= 12
    report = call.trace.fusion
    assert (report.state, report.rows_per_row) == ("fused", 2)
    assert report.reason.endswith(" since gates opened at 1 of 1 steps")


def test_a_stream_joins_late_where_its_gate_opens_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a least share of a quarter, one request in 7 steps is too few; two in 8 are enough."""
    monkeypatch.setattr(fusion, "CHEAP_ROWS", 0.25)
    monkeypatch.setattr(fusion, "is_faster", lambda *_: True)
    call, lazy = bound("uscd(lame='x')", prompts=["one prompt"]), bound("uscd(lame='x')", prompts=["one prompt"])
    for one in (call, lazy):
        part = one.composite.parts[0][1]
        part.applies = lambda rows: torch.full((len(rows),), rows.shape[1] in (16, 17, 19))  # 10 tokens of prompt
    assert torch.equal(decode(call, "auto"), decode(lazy, "lazy"))
    assert call.trace.fusion.reason.endswith(" since gates opened at 2 of 8 steps")
    assert (call.trace.forwards["lame prompt"], lazy.trace.forwards["lame prompt"]) == (2, 3)


def test_a_wide_forward_must_pay_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where further rows cost as much as forwards, one request in three leaves the stream lazy."""
    monkeypatch.setattr(fusion, "is_faster", lambda *_: False)
    call = bound("uscd(lame='x')", prompts=["one prompt"])
    call.composite.parts[0][1].applies = lambda rows: torch.full((len(rows),), rows.shape[1] % 3 == 0)
    decode(call, "auto")
    assert call.trace.fusion.state == "lazy" and call.trace.forwards == {"lame prompt": 4}


@pytest.mark.parametrize(
    ("chain", "told"),
    [
        ("uscd(gate=0.0001, lame='x') | cfg(2.0)", {}),  # cfg requests its stream at every step
        ("cfg(2.0, gate={'measure': 'js', 'above': 9.0})", {}),  # the measure compares both streams
        ("uscd(gate=1.0, lame='x')", {}),  # the gate is always open
        ("uscd(gate=0.0001, lame='x')", {"cache_implementation": "static"}),
    ],
)
def test_other_streams_are_fused_from_the_first_step(chain: str, told: dict[str, Any]) -> None:
    """Waiting would cost a forward, or another shape of a compiled forward."""
    call = bound(chain)
    decode(call, "auto", **told)
    assert call.trace.fusion.state == "fused" and not any(call.trace.forwards.values())


def test_a_sliding_window_is_fused_from_the_first_step() -> None:
    """Its cache drops tokens, so no rows can be put below it later."""
    call = bound("uscd(gate=0.0001, lame='x')", sliding_model())
    decode(call, "auto")
    assert call.trace.fusion.state == "fused"


def test_a_second_call_waits_again() -> None:
    """The state of one `generate` says nothing about the next one."""
    call, again = (bound(OPEN.format("x"), prompts=PROMPTS[:1]) for _ in range(2))
    first = decode(call, "auto")
    assert torch.equal(decode(call, "auto"), first) and torch.equal(decode(again, "lazy"), first)
    assert call.trace.forwards == {"negative prompt": 2} and call.trace.fusion.state == "fused"
