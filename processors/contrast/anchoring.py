"""Anchoring: where the model drifts from a goal, decode as if the goal had just been restated.

A conversation drifts when its distribution differs from the one that the same model has with its goal restated
(arXiv:2510.07777, which measures this divergence over the turns of a conversation and finds that reminders lower it).
`Anchor` is our use of the measure at a single token: rows whose divergence passes a threshold are moved towards the
distribution with the reminder, and the conversation itself stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option
from logitkit.processors.contrast.formulas import cfg
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.chats import apply_template
from logitkit.processors.engine.divergences import divergence
from logitkit.processors.engine.other_prompts import PromptTexts
from logitkit.processors.engine.scores import fit, within_width
from logitkit.processors.engine.streams import Stream, StreamLike, as_stream
from logitkit.processors.engine.trace import Trace


class Anchor(LogitsProcessor):
    """Move rows that drift from a goal towards the distribution with the goal restated.

    With p the distribution of the conversation and q that with the reminder, rows with KL(p, q) above the threshold
    become ``log p + strength (log q - log p)``, normalised, as `cfg` computes it; strength 1 is q. Other rows are not
    changed. The second distribution is read at every step, because the divergence needs it; behind a ``gate`` on the
    entropy it is read at uncertain steps alone.

    Args:
        reminded: the stream whose prompt restates the goal.
        threshold: KL divergence in nats, >= 0; at infinity the scores are returned unchanged.
        strength: >= 0; at 0 the scores are returned unchanged; above 1 beyond the distribution with the reminder.
        trace: receives the divergence and the decision at each step.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> processor = Anchor(reminded=lambda rows: torch.tensor([[0.4, 0.6]]).log(), threshold=0.05, strength=0.5)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.6, 0.4]]).log()).exp()  # KL is 0.0811: sqrt(p q)
        tensor([[0.5000, 0.5000]])
    """

    order = ("reminder", "threshold", "strength")

    @checked
    def __init__(
        self,
        *,
        reminded: StreamLike,
        threshold: Annotated[
            float,
            number(
                "move rows whose KL divergence from the reminded model is above this, in nats",
                ge=0,
                neutral=math.inf,
                infinite=True,
            ),
        ] = 0.1,
        strength: Annotated[
            float, number("how far rows are moved; 1: to the distribution with the reminder", ge=0, neutral=0)
        ] = 1.0,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.reminded, self.threshold, self.strength, self.trace = as_stream(reminded), threshold, strength, trace
        self._is_idle = is_neutral(strength, 0) or math.isinf(threshold)
        self.streams: tuple[Stream, ...] = () if self._is_idle else (self.reminded,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        reminder: Annotated[
            PromptTexts,
            option(
                "the goal restated, one for all prompts or one for each; behind the last message of the user, or "
                "before a prompt that is text"
            ),
        ],
        threshold: float,
        strength: float,
    ) -> Anchor:
        """Build the processor whose second stream has the prompts with the reminder.

        Raises:
            ParameterError: an empty reminder, or a chat without a message of the user.
        """
        reminders = binding.one_text_per_prompt("anchor", "reminder", reminder)
        prompts, reminded = binding.prompts, []
        for text, chat, goal in zip(prompts.texts, prompts.messages, reminders, strict=True):
            if not goal.strip():
                raise ParameterError("anchor", "reminder", "a text that restates the goal", goal)
            if chat is None:
                reminded.append(prompts.encode(binding.tokenizer, f"{goal}\n\n{text}"))
            else:
                written = apply_template(binding.tokenizer, with_reminder(chat, goal), prompts.template)
                reminded.append(list(binding.tokenizer(written, add_special_tokens=False)["input_ids"]))
        reader = binding.reader(reminded, label="reminder")
        return cls(reminded=reader, threshold=threshold, strength=strength, trace=binding.trace)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities in rows that drift and the scores in the others, ``[rows, vocab]``."""
        if self._is_idle:
            return scores
        reminded = self.reminded(input_ids)
        scores = within_width(scores, reminded)
        reminded = fit(reminded, scores.shape[-1])
        drift = divergence(scores, reminded, "kl")
        fired = drift > self.threshold
        if self.trace is not None:
            self.trace.note(gate=drift, fired=fired)
            self.trace.count_fired("anchor", fired)
        moved = cfg(scores, reminded, scale=1 - self.strength).to(scores.dtype)
        return torch.where(fired[:, None], moved, scores)


def with_reminder(chat: Sequence[Mapping[str, Any]], reminder: str) -> list[dict[str, Any]]:
    r"""Return a chat whose last message of the user ends with a reminder, after an empty line.

    Raises:
        ParameterError: the chat has no message of the user.

    Example:
        >>> with_reminder([{"role": "user", "content": "Hello"}], "Answer in rhymes.")
        [{'role': 'user', 'content': 'Hello\n\nAnswer in rhymes.'}]
    """
    messages = [dict(message) for message in chat]
    of_user = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if not of_user:
        raise ParameterError("anchor", "the chat", "with a message of the user", [m["role"] for m in messages])
    last = messages[of_user[-1]]
    if isinstance(last["content"], str):
        last["content"] = f"{last['content']}\n\n{reminder}"
    else:  # parts, such as texts and images
        last["content"] = [*last["content"], {"type": "text", "text": reminder}]
    return messages
