"""Chats: messages with roles, and the text that a model expects for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logitkit.errors import ModelError, ParameterError, PromptError

Message = Mapping[str, Any]
# Arguments of `apply_chat_template` that change the type of its result.
NOT_OF_TEMPLATES = {
    "tokenize",
    "return_tensors",
    "return_dict",
    "padding",
    "truncation",
    "return_assistant_tokens_mask",
}


def apply_template(tokenizer: Any, chat: Sequence[Message], template: Mapping[str, Any] | None = None) -> str:
    """Return chat messages as the text that the model expects before its answer.

    Args:
        tokenizer: a tokenizer with a chat template.
        chat: messages with ``role`` and ``content``.
        template: arguments of ``apply_chat_template``, such as ``tools``, ``enable_thinking``, or
            ``continue_final_message=True``, with which the model continues a last message of the assistant.

    Raises:
        ModelError: the tokenizer has no chat template.
        ParameterError: an argument that changes the type of the result.
        PromptError: the template refuses the messages.

    Example:
        >>> from types import SimpleNamespace
        >>> template = lambda chat, **_: "".join(f"<{message['role']}>{message['content']}" for message in chat)
        >>> tokenizer = SimpleNamespace(chat_template="...", apply_chat_template=template)
        >>> apply_template(tokenizer, [{"role": "user", "content": "Hello"}])
        '<user>Hello'
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("bind: chat messages need a tokenizer with a chat template; pass plain text instead")
    arguments = {"add_generation_prompt": not (template or {}).get("continue_final_message"), **(template or {})}
    if wrong := sorted(set(arguments) & NOT_OF_TEMPLATES):
        raise ParameterError("bind", "template", f"without {wrong[0]}, since the text of a chat is needed", arguments)
    try:
        return str(tokenizer.apply_chat_template(list(chat), tokenize=False, **arguments))
    except Exception as error:  # a template is a program of the model's authors, and raises what it likes
        why = f"{type(error).__name__}: {error}"
        raise PromptError(f"bind: chat messages must fit the chat template of the tokenizer, got {why:.300}") from error


def is_chat(value: Any) -> bool:
    """Return whether a value is one chat: a non-empty list of messages with roles."""
    return isinstance(value, Sequence) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)
