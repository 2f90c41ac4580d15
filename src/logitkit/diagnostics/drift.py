"""Drift of a conversation: how far a model is, turn by turn, from itself with its goal restated.

arXiv:2510.07777 measures, over the tokens of an answer, the mean divergence KL(q, p) of the model in the conversation
(q) from a reference that keeps the goal (p), and describes its course by a bounded recurrence with a restoring force
and interventions. Here the reference is the same model with the goal restated behind the last message of the user, and
the divergence is over the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.contrast import with_reminder
from logitkit.processors.engine import divergence
from logitkit.registry.chain import Chain
from logitkit.registry.scoring import continuation_tokens, refuse_searches, scores_along

Message = Mapping[str, Any]
STEADY = 1e-6  # nats; a course that varies by less is rounding, to which nothing can be fitted
FEWEST_CHANGES = 2  # more changes of the drift than parameters of the fit, so that its intervals are finite


class TurnDrift(NamedTuple):
    """The drift of one answer.

    Attributes:
        turn: number of the answer, from 1.
        tokens: tokens of the answer.
        divergence: mean of KL(q, p) over the tokens, nats; of an empty answer, that at its end.
        reminder: whether the message before the answer restated the goal.

    Example:
        >>> TurnDrift(1, 8, 0.5, reminder=False).divergence
        0.5
    """

    turn: int
    tokens: int
    divergence: float
    reminder: bool


class DriftFit(NamedTuple):
    """The fit ``D_(t+1) - D_t = a - b D_t - c r_(t+1) + noise`` by least squares.

    Attributes:
        estimates: value of each coefficient, and the limits of its interval of 95 %. ``c`` is there only if some
            turns have a reminder and some have none.
        changes: number of changes of the drift.

    Example:
        >>> DriftFit({"a": (0.2, 0.1, 0.3), "b": (0.5, 0.2, 0.8)}, 9).estimates["b"][0]
        0.5
    """

    estimates: dict[str, tuple[float, float, float]]
    changes: int


def measure_drift(
    model: Any,
    tokenizer: Any,
    chat: Sequence[Message],
    goal: str,
    *,
    chain: str | Chain = "",
    remind_every: int | None = None,
    max_new_tokens: int = 64,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[TurnDrift], list[dict[str, Any]]]:
    """Return the drift of each answer of a conversation, and the whole conversation.

    An answer that the chat lacks is generated greedily, under the chain; so is the distribution q of every answer.

    Args:
        model, tokenizer: of a chat model.
        chat: messages; each message of the user is followed by an answer of the assistant, or by the next message.
        goal: what the answers should keep to, as it is restated.
        chain: the chain that decodes.
        remind_every: restate the goal in every so many messages of the user, from this one; None: never.
        max_new_tokens: length of a generated answer.
        advance: called after each answer.

    Raises:
        ParameterError: an empty goal.
        ModeError: a chain with a search or a selector, under which an answer has no distribution.
        ModelError: a model with an encoder.
        FileFormatError: messages in another order.

    Example:
        >>> import copy
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> tokenizer = copy.deepcopy(tiny_tokenizer())
        >>> tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        >>> chat = [{"role": "user", "content": "One?"}, {"role": "user", "content": "Two?"}]
        >>> turns, whole = measure_drift(tiny_model(), tokenizer, chat, "Count.", max_new_tokens=4)
        >>> [turn.turn for turn in turns], [message["role"] for message in whole]
        ([1, 2], ['user', 'assistant', 'user', 'assistant'])
    """
    if not goal.strip():
        raise ParameterError("drift", "goal", "a text", goal)
    if model.config.is_encoder_decoder:
        raise ModelError("drift: model must be decoder-only, got one with an encoder; choose a chat model")
    chain = Chain(chain)
    refuse_searches(chain, "drift")
    turns: list[TurnDrift] = []
    told: list[dict[str, Any]] = []
    for number, (context, answer) in enumerate(_exchanges(chat), start=1):
        reminds = remind_every is not None and number % remind_every == 0
        told += with_reminder(context, goal) if reminds else [dict(message) for message in context]
        call = chain.bind(model, tokenizer, [told])
        if answer is None:
            out = call.generate(max_new_tokens=max_new_tokens, do_sample=False)
            answer = call.texts(out)[0]
        tokens = continuation_tokens(call, 0, answer) if answer else []
        reminded = Chain("").bind(model, tokenizer, [with_reminder(told, goal)])
        # An empty answer has one distribution, from which it ended. The last token is not read, so any stands for it.
        divergences = _divergences(call, reminded, tokens or [0])
        turns.append(TurnDrift(number, len(tokens), float(divergences.mean()), reminds))
        told.append({"role": "assistant", "content": answer})
        advance()
    return turns, told


def _divergences(call: Any, reminded: Any, tokens: Sequence[int]) -> torch.Tensor:
    """Return the divergence before each token of an answer, ``[tokens]``, nats."""
    pairs = zip(scores_along(call, [tokens]), scores_along(reminded, [tokens]), strict=True)
    return torch.cat([divergence(q, p.to(q.device), "kl") for (_, q, _), (_, p, _) in pairs])


def _exchanges(chat: Sequence[Message]) -> list[tuple[list[Message], str | None]]:
    """Return the messages before each answer that the answers before have not seen, and the answer or None.

    Raises:
        FileFormatError: an answer before a message of the user, or another role than system, user and assistant.
    """
    found: list[tuple[list[Message], str | None]] = []
    before: list[Message] = []
    for message in chat:
        role = message.get("role")
        if role == "assistant":
            if not before or before[-1].get("role") != "user":
                raise FileFormatError("drift: an answer of the assistant must follow a message of the user")
            found.append((before, str(message["content"])))
            before = []
        elif role == "user":
            if before and before[-1].get("role") == "user":
                found.append((before, None))
                before = []
            before = [*before, message]
        elif role == "system":
            before = [*before, message]
        else:
            raise FileFormatError(f"drift: a message must have the role system, user or assistant, got {role!r}")
    if before and before[-1].get("role") == "user":
        found.append((before, None))
    if not found:
        raise FileFormatError("drift: a conversation must have a message of the user, got none")
    return found


def fit_drift(turns: Sequence[TurnDrift]) -> DriftFit | None:
    """Return the fit of the course of a drift, or None where there are too few turns or the drift does not vary.

    The drift of a turn stands on both sides of the equation, so noise in its measurement makes ``b`` too large.
    Needs statsmodels, which the extra ``[bench]`` installs.

    Args:
        turns: in order.

    Example:
        >>> drifts = [1.0, 0.75, 0.625, 0.5625, 0.53125, 0.515625]  # half the way to 0.5 each turn
        >>> found = fit_drift([TurnDrift(n, 8, d, False) for n, d in enumerate(drifts, start=1)])
        >>> [round(found.estimates[name][0], 3) for name in "ab"]
        [0.25, 0.5]
    """
    import numpy as np
    from statsmodels.api import OLS

    drift = np.array([turn.divergence for turn in turns])
    reminded = np.array([turn.reminder for turn in turns[1:]], dtype=float)
    columns = {"a": np.ones(len(drift) - 1), "b": -drift[:-1]}
    if 0 < reminded.sum() < len(reminded):
        columns["c"] = -reminded
    if len(drift) - 1 < len(columns) + FEWEST_CHANGES or np.ptp(drift[:-1]) < STEADY:
        return None
    fitted = OLS(np.diff(drift), np.stack(list(columns.values()), axis=1)).fit()
    limits = fitted.conf_int()
    estimates = {
        name: (float(fitted.params[place]), float(limits[place][0]), float(limits[place][1]))
        for place, name in enumerate(columns)
    }
    return DriftFit(estimates, len(drift) - 1)
