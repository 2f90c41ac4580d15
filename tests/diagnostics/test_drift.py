"""Drift of a conversation against a loop over prefixes in double precision, the fit against a recurrence, the plot."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.diagnostics import TurnDrift, drift_plot, fit_drift, measure_drift
from logitkit.errors import FileFormatError, ModeError, ModelError, ParameterError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four five"},
]


def chat_tokenizer() -> Any:
    """Return a copy of the tiny tokenizer with a chat template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def written(messages: list[dict[str, str]]) -> str:
    """Return what the template writes before an answer."""
    return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_drift_is_the_mean_divergence_of_the_answers() -> None:
    """Each prefix of each answer is read again, in double precision, in the conversation and with the goal restated."""
    model, tokenizer = copy.deepcopy(tiny_model()).double(), chat_tokenizer()
    got, whole = measure_drift(tiny_model(), tokenizer, CHAT, "be brief")
    assert whole == CHAT
    for turn, before in zip(got, (CHAT[:2], CHAT[:4]), strict=True):
        answer = CHAT[len(before)]["content"]
        told = [*before[:-1], {"role": "user", "content": f"{before[-1]['content']}\n\nbe brief"}]
        values = []
        for place in range(len(tokenizer(answer)["input_ids"])):
            ids = tokenizer(answer)["input_ids"][:place]
            q, p = (
                model(torch.tensor([tokenizer(written(text))["input_ids"] + ids])).logits[0, -1].softmax(-1).tolist()
                for text in (before, told)
            )
            values.append(sum(a * math.log(a / b) for a, b in zip(q, p, strict=True)))
        assert turn.tokens == len(values) and turn.divergence == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_answers_are_generated_and_reminders_stand_in_the_chat() -> None:
    """Every second message restates the goal; missing answers are those of the chain."""
    questions = [{"role": "user", "content": word} for word in ("one", "two", "three", "four")]
    turns, whole = measure_drift(
        tiny_model(), chat_tokenizer(), questions, "be brief", remind_every=2, max_new_tokens=3
    )
    assert [turn.reminder for turn in turns] == [False, True, False, True]
    said = [message["content"] for message in whole if message["role"] == "user"]
    assert said == ["one", "two\n\nbe brief", "three", "four\n\nbe brief"]
    assert [message["role"] for message in whole] == ["user", "assistant"] * 4


def test_an_anchored_conversation_does_not_drift() -> None:
    """At strength 1 and threshold 0 the chain decodes as if the goal were restated."""
    turns, _ = measure_drift(
        tiny_model(), chat_tokenizer(), CHAT, "be brief", chain="anchor('be brief', threshold=0.0)"
    )
    plain, _ = measure_drift(tiny_model(), chat_tokenizer(), CHAT, "be brief")
    assert max(turn.divergence for turn in turns) < 1e-6 < min(turn.divergence for turn in plain)


@given(st.floats(0.05, 0.5), st.floats(0.2, 0.9), st.floats(0.01, 0.3), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_fit_finds_the_recurrence(a: float, b: float, c: float, seed: int) -> None:
    """A course without noise gives its own coefficients."""
    reminded = np.random.default_rng(seed).random(12) < 0.4
    reminded[:3] = [False, True, False]
    drift = [1.5]
    for flag in reminded[1:]:
        drift.append(drift[-1] + a - b * drift[-1] - c * flag)
    course = [TurnDrift(n, 5, d, bool(r)) for n, (d, r) in enumerate(zip(drift, reminded, strict=True), start=1)]
    found = fit_drift(course)
    assert found is not None and found.changes == 11
    assert [found.estimates[name][0] for name in "abc"] == pytest.approx([a, b, c], abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_drift_that_does_not_vary_has_no_fit(noise: float) -> None:
    """With and without reminders; rounding is no course."""
    for reminders in ((0, 0, 0), (0, 1, 0)):
        flags = [bool(flag) for flag in reminders * 3]
        course = [TurnDrift(n, 5, 0.5 + noise * (n % 3), flag) for n, flag in enumerate(flags, start=1)]
        assert fit_drift(course) is None


def test_few_turns_have_no_fit() -> None:
    """By hand: a and b need 4 changes, which are 5 turns; without reminders there is no c."""
    course = [TurnDrift(n, 5, d, False) for n, d in enumerate([1.0, 0.8, 0.75, 0.6, 0.62], start=1)]
    assert fit_drift(course[:4]) is None
    found = fit_drift(course)
    assert found is not None and set(found.estimates) == {"a", "b"}
    for value, low, high in found.estimates.values():
        assert low < value < high


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([{"role": "assistant", "content": "x"}], "must follow a message of the user"),
        ([{"role": "tool", "content": "x"}], "must have the role system, user or assistant, got 'tool'"),
        ([{"role": "system", "content": "x"}], "must have a message of the user, got none"),
    ],
)
def test_other_conversations_are_refused(chat: list[dict[str, str]], message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        measure_drift(tiny_model(), chat_tokenizer(), chat, "a goal")


def test_an_empty_answer_has_the_divergence_at_its_end() -> None:
    """It is that of the first token of any other answer, and the conversation keeps the empty answer."""
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": ""}]
    (empty,), whole = measure_drift(tiny_model(), chat_tokenizer(), chat, "be brief")
    (one,), _ = measure_drift(tiny_model(), chat_tokenizer(), [chat[0], {**chat[1], "content": "x"}], "be brief")
    assert empty.tokens == 0 and whole == chat and one.tokens == 1
    assert empty.divergence == pytest.approx(one.divergence) and empty.divergence > 0


def test_chains_and_models_without_such_distributions_are_refused() -> None:
    with pytest.raises(ModeError, match="drift: smc must be left out"):
        measure_drift(tiny_model(), chat_tokenizer(), CHAT, "be brief", chain="smc(particles=2)")
    with pytest.raises(ModelError, match="drift: model must be decoder-only"):
        measure_drift(encoder_decoder_model(), chat_tokenizer(), CHAT, "be brief")


def test_an_empty_goal_is_refused() -> None:
    with pytest.raises(ParameterError, match="drift: goal must be a text"):
        measure_drift(tiny_model(), chat_tokenizer(), CHAT, " ")


def test_the_plot_shows_every_turn() -> None:
    """A point for each turn, a ring for each reminder, a line and a name for each chain, and safe text."""
    course = [TurnDrift(1, 5, 0.0, False), TurnDrift(2, 5, 0.4, True)]
    svg = drift_plot({"plain": course, "<b>": course})
    assert svg.count("<circle") == 6 and svg.count("<polyline") == 2 and "&lt;b&gt;" in svg and "<b>" not in svg
    assert "NaN" not in drift_plot({"flat": [TurnDrift(1, 5, 0.0, False)]})
