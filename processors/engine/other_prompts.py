"""Prompts of second streams that a parameter gives as texts or as chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logitkit.errors import ParameterError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.chats import apply_template, is_chat

Chat = list[dict[str, Any]]
PromptTexts = str | list[str]  # one text for all prompts, or one for each prompt
PromptsOrChats = str | list[str] | Chat | list[Chat]
SYSTEM_ROLES = ("system", "developer")


def other_prompts(binding: Binding, owner: str, parameter: str, value: PromptsOrChats) -> list[list[int]]:
    """Return the token ids of a second stream's prompts, one for each prompt of the call.

    A chat is written with the template of the tokenizer and with the template arguments of the call. A chat of system
    messages alone stands for the chat of each prompt with these system messages in the place of its own.

    Args:
        binding: the call.
        owner: the processor, for errors.
        parameter: the parameter that holds the value, for errors.
        value: one text or chat for all prompts, or one for each prompt.

    Raises:
        ParameterError: the number is neither one nor the number of prompts, a text is empty, or a chat of system
            messages alone while the prompts of the call are texts.
        ModelError: a chat, and a tokenizer without a chat template.
        PromptError: messages that the template refuses.

    Example:
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> binding = Binding(tiny_model(), tiny_tokenizer(), read_prompts(tiny_tokenizer(), tiny_model(), ["x", "y"]))
        >>> other_prompts(binding, "cfg", "negative", "ab") == [tiny_tokenizer()("ab")["input_ids"]] * 2
        True
    """
    prompts, tokenizer = binding.prompts, binding.tokenizer
    if isinstance(value, str) or not any(isinstance(part, (list, tuple, Mapping)) for part in value):
        texts = binding.one_text_per_prompt(owner, parameter, value)  # type: ignore[arg-type]
        return [prompts.encode(tokenizer, text) for text in texts]
    chats: Sequence[Any] = [value] * len(prompts) if is_chat(value) else value
    if len(chats) != len(prompts) or not all(map(is_chat, chats)):
        rule = f"one chat, or {len(prompts)} (one a prompt), each of messages with a role"
        raise ParameterError(owner, parameter, rule, value)
    ids = []
    for chat, own in zip(chats, prompts.messages, strict=True):
        if all(message["role"] in SYSTEM_ROLES for message in chat):
            if own is None:
                rule = "a whole chat where the prompts of the call are texts"
                raise ParameterError(owner, parameter, rule, value, "add a message of the user")
            chat = [*chat, *(message for message in own if message["role"] not in SYSTEM_ROLES)]
        text = apply_template(tokenizer, chat, prompts.template)
        ids.append(list(tokenizer(text, add_special_tokens=False)["input_ids"]))
    return ids
