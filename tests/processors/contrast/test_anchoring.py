"""Anchoring: a worked example, a slow reference, the neutral values, and the prompts with a reminder."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.contrast import Anchor, with_reminder
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.fixed_streams import CountedStream, logits_with_ties

IDS = torch.zeros(4, 2, dtype=torch.long)
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def normalised(row: list[float]) -> list[float]:
    """Return a row of logits as log-probabilities; -inf stays."""
    total = math.log(sum(math.exp(x - max(row)) for x in row)) + max(row)
    return [x - total for x in row]


def slow_anchor(p: list[float], q: list[float], threshold: float, strength: float) -> list[float]:
    """Return one row token by token; a row that does not drift is unchanged."""
    first, second = normalised(p), normalised(q)
    kl = sum(
        math.exp(a) * (a - b) if b > -math.inf else math.inf
        for a, b in zip(first, second, strict=True)
        if a > -math.inf
    )
    if kl <= threshold:
        return p
    pairs = zip(first, second, strict=True)
    return normalised([a if -math.inf in (a, b) else (1 - strength) * a + strength * b for a, b in pairs])


@given(seed=st.integers(0, 999), threshold=st.sampled_from([0.0, 1.0, 4.0]), strength=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_it_equals_its_slow_reference(seed: int, threshold: float, strength: float) -> None:
    """Random rows with ties and impossible tokens, and streams that are close to them."""
    p = logits_with_ties(seed)
    q = p + torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    q[:, seed % 3 :: 7] = -math.inf if seed % 2 else 0.0
    got = Anchor(reminded=lambda rows: q, threshold=threshold, strength=strength)(IDS, p)
    for row in range(4):
        want = slow_anchor(p[row].tolist(), q[row].tolist(), threshold, strength)
        torch.testing.assert_close(got[row], torch.tensor(want), rtol=1e-4, atol=1e-4)


def test_by_hand() -> None:
    """KL of (.6, .4) from (.4, .6) is .6 log 1.5 + .4 log(2/3) = .0811 nats: above .08, and not above .09."""
    p, q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.4, 0.6]]).log()
    for threshold, strength, want in (
        (0.08, 1.0, 0.4),
        (0.09, 1.0, 0.6),
        (0.08, 0.5, 0.5),
        (0.08, 2.0, 0.16 / 0.6 / (0.16 / 0.6 + 0.36 / 0.4)),
    ):
        got = Anchor(reminded=lambda rows: q, threshold=threshold, strength=strength)(IDS[:1], p)
        assert got.exp()[0, 0].item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"threshold": math.inf}])
def test_neutral_values_read_nothing(settings: dict[str, float]) -> None:
    stream, scores = CountedStream(logits_with_ties(1)), logits_with_ties(0)
    processor = Anchor(reminded=stream, **settings)
    assert processor(IDS, scores) is scores and stream.reads == 0 and processor.streams == ()


def test_strength_one_is_the_reminded_conversation() -> None:
    """With the threshold 0 the text is that of the prompt with the reminder, for texts and for chats."""
    model, tokenizer = tiny_model(), copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATE
    chat = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    for prompt, reminded in (
        ("a text", "say it\n\na text"),
        (chat, [*chat[:2], {"role": "user", "content": "three\n\nsay it"}]),
    ):
        settings = {"max_new_tokens": 8, "do_sample": False}
        chain = "anchor('say it', threshold=0.0)"
        got = logitkit.generate(model, tokenizer, [prompt], chain=chain, **settings)
        assert got.texts == logitkit.generate(model, tokenizer, [reminded], chain="", **settings).texts
        assert got.trace.fired == {"anchor": 1.0}


def test_the_reminder_goes_behind_the_last_message_of_the_user() -> None:
    parts = [{"type": "text", "text": "one"}]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": "two"}]
    assert with_reminder(chat, "three")[0]["content"] == [*parts, {"type": "text", "text": "three"}]
    assert chat[0]["content"] == parts, "the chat itself is not changed"


def test_wrong_reminders_are_refused() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(ParameterError, match="anchor: reminder must be a text that restates the goal, got ' '"):
        logitkit.chain("anchor(' ')").bind(model, tokenizer, "a text")
    with pytest.raises(ParameterError, match="anchor: the chat must be with a message of the user"):
        with_reminder([{"role": "system", "content": "x"}], "y")
    with pytest.raises(ParameterError, match="anchor: threshold must be"):
        logitkit.chain("anchor('x', threshold=-1.0)")
