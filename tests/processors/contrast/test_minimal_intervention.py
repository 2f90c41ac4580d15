"""MTI: worked example, slow reference, its cost, and its errors. Laws and modes run on the registered example."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.contrast import MTI
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.fixed_streams import CountedStream, logits_with_ties


def test_worked_example() -> None:
    """Entropies .67 and .33 nats, threshold .5: the first row is guided to .6^2/.4 against .4^2/.6, that is 27 : 8."""
    p, q = torch.tensor([[0.6, 0.4], [0.9, 0.1]]).log(), torch.tensor([[0.4, 0.6], [0.4, 0.6]]).log()
    got = MTI(negative=lambda rows: q, scale=2.0, threshold=0.5)(torch.zeros(2, 1).long(), p)
    torch.testing.assert_close(got[0].exp(), torch.tensor([27 / 35, 8 / 35]))
    assert torch.equal(got[1], p[1])


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.0, 1.0, 1.5, 3.0]), threshold=st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_equals_guidance_of_single_rows(seed: int, scale: float, threshold: float) -> None:
    """Slow reference: each row alone, its entropy summed in plain Python."""
    p, q = logits_with_ties(seed), logits_with_ties(seed + 1)
    got = MTI(negative=lambda rows: q, scale=scale, threshold=threshold)(torch.zeros(4, 1).long(), p)
    for row in range(4):
        first, second = (z[row].double().log_softmax(-1).tolist() for z in (p, q))
        entropy = -sum(math.exp(x) * x for x in first if x > -math.inf)
        if abs(entropy - threshold) < 1e-5:
            continue
        if entropy < threshold or scale == 1:
            assert torch.equal(got[row], p[row])
            continue
        guided = [a if -math.inf in (a, b) else b + scale * (a - b) for a, b in zip(first, second, strict=True)]
        want = torch.tensor(guided).log_softmax(-1)
        torch.testing.assert_close(got[row], want, rtol=1e-4, atol=1e-4)


def test_a_call_reads_no_second_cache() -> None:
    """Lazily: one forward of the text for each step that fires, behind the cache of generate, none by a reader."""
    call = logitkit.chain("mti(threshold=4.4)").bind(tiny_model(), tiny_tokenizer(), "a prompt here", trace=True)
    call.generate(max_new_tokens=12, do_sample=False, streams="lazy")
    fired = sum(step.notes["fired"] for step in call.trace.steps)
    assert 0 < fired < 12 and call.trace.fired["mti"] == fired / 12
    assert call.trace.forwards == {"generating model": 0, "negative text behind the row": fired}
    assert call.trace.readers["negative text behind the row"].tokens == fired * len("OUTPUT ERROR")


def test_neutral_and_shut_rows_ask_nothing() -> None:
    """At scale 1, and above every entropy, the scores themselves are returned."""
    stream, scores = CountedStream(logits_with_ties(1)), logits_with_ties(0)
    for processor in (MTI(negative=stream, scale=1.0), MTI(negative=stream, threshold=50.0)):
        assert processor(torch.zeros(4, 1).long(), scores) is scores and stream.reads == 0


def test_a_text_without_tokens_is_refused() -> None:
    """The error names the rule."""
    with pytest.raises(ParameterError, match="mti: negative must be a text with at least one token, got ''"):
        logitkit.chain("mti(negative='')").bind(tiny_model(), tiny_tokenizer(), "a prompt")
