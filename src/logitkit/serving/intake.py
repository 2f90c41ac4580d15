"""Turns the fields of a request into rows, after every check that needs no forward of the model."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from typing import Any

from logitkit.errors import ParameterError, UnknownNameError
from logitkit.processors.model_facts import vocabulary_size
from logitkit.registry.chain import Chain
from logitkit.serving.engine import Engine
from logitkit.serving.fields import ChatFields, CommonFields, CompletionFields, stops_of
from logitkit.serving.row import Prompt, Row

COMPLETION_TOKENS = 16  # OpenAI's default for completions
LONGEST_CHAIN = 20_000  # characters; a longer one is a mistake, or an attack on the parser
TEMPLATE_ARGUMENTS = {"add_generation_prompt", "continue_final_message"}  # the others of apply_chat_template are ours


class ContextError(ParameterError):
    """Prompt and continuation are longer than the context of the model."""


class BodyTooLongError(ParameterError):
    """The body of a request has too many bytes."""


class UnknownModelError(UnknownNameError):
    """The server does not serve the model that a request names."""


def rows_of(engine: Engine, owner: str, fields: Any) -> list[Row]:
    """Return the rows of a request: ``n`` for each prompt, those of one prompt side by side.

    Args:
        engine: the server.
        owner: the endpoint, for errors.
        fields: checked fields.

    Raises:
        UnknownModelError: another model.
        ContextError: prompt and continuation are longer than the context.
        LogitkitError: a field or a chain that is refused.
    """
    if fields.model not in ("", engine.name):
        raise UnknownModelError("model", fields.model, [engine.name], f"this server has {engine.name!r}")
    chain = chain_of(engine, owner, fields)
    prompts = _prompts_of(engine, owner, fields)
    if len(prompts) * fields.n > engine.limits.max_queue:
        rule = f"at most {engine.limits.max_queue} texts in a request"
        raise ParameterError(owner, "n", rule, len(prompts) * fields.n, "send several requests")
    rows = []
    for prompt, count in zip(prompts, engine.count_tokens(chain, prompts), strict=True):
        new = _new_tokens(engine, owner, fields, count)
        counted = Prompt(value=prompt.value, kind=prompt.kind, template=prompt.template, tokens=count)
        seed = secrets.randbits(63) if fields.seed is None else fields.seed
        rows += [
            Row(
                prompt=counted,
                chain=chain,
                seed=seed_of(seed, number),
                temperature=fields.temperature,
                top_p=fields.top_p,
                new_tokens=new,
                stops=stops_of(fields),
                top_logprobs=_top_logprobs(owner, fields),
                streams=fields.stream,
            )
            for number in range(fields.n)
        ]
    return rows


def chain_of(engine: Engine, owner: str, fields: CommonFields) -> Chain:
    """Return the chain of a request: its own, or the default one of the server.

    Raises:
        ParameterError: requests may not name a chain; or a field that the chain replaces, or that a search ignores.
        LogitkitError: a chain that cannot be read, or names what the server was not started with.
    """
    if fields.chain is None:
        chain = engine.chain
    else:
        if not engine.own_chains:
            raise ParameterError(owner, "chain", "left out: this server has one chain", fields.chain)
        if len(fields.chain if isinstance(fields.chain, str) else json.dumps(fields.chain)) > LONGEST_CHAIN:
            raise ParameterError(owner, "chain", f"at most {LONGEST_CHAIN} characters", "a longer one")
        chain = Chain(fields.chain)
        chain.require_packages()
        engine.resources.check(chain)
    _check_sampling(owner, fields, chain)
    return chain


def _check_sampling(owner: str, fields: CommonFields, chain: Chain) -> None:
    """Refuse sampling fields that a step of the chain replaces, and those that a search does not read.

    Raises:
        ParameterError: names the field.
    """
    for name, value, neutral in (("temperature", fields.temperature, (0, 1)), ("top_p", fields.top_p, (1,))):
        replaced = any(name in spec.replaces for spec in chain.specs)
        if value not in neutral and (replaced or chain.searches):
            reason = "the chain has this step" if replaced else f"write it in the chain, before {chain.specs[-1].name}"
            raise ParameterError(owner, name, "left out beside this chain", value, reason)
    if chain.searches and _top_logprobs(owner, fields) is not None:
        raise ParameterError(owner, "logprobs", f"left out beside the search {chain.specs[-1].name}", True)


def seed_of(seed: int, number: int) -> int:
    """Return the seed of one of the texts of a prompt; the first has the seed of the request.

    >>> seed_of(7, 0), seed_of(7, 1) == seed_of(7, 1), seed_of(7, 1) == seed_of(7, 2)
    (7, True, False)
    """
    if not number:
        return seed
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _top_logprobs(owner: str, fields: Any) -> int | None:
    """Return how many likeliest tokens are wanted beside each token; None: no log-probabilities at all."""
    if isinstance(fields, CompletionFields):
        return fields.logprobs
    if fields.top_logprobs is not None and not fields.logprobs:
        raise ParameterError(owner, "top_logprobs", "left out without logprobs=true", fields.top_logprobs)
    return (fields.top_logprobs or 0) if fields.logprobs else None


def _new_tokens(engine: Engine, owner: str, fields: Any, prompt: int) -> int:
    """Return the most new tokens of a row whose prompt has so many tokens.

    Raises:
        ContextError: the context has no room.
        ParameterError: more than the server writes; or two fields that say different numbers.
    """
    chat = isinstance(fields, ChatFields)
    asked, name, most = fields.max_tokens, "max_tokens", engine.limits.max_tokens
    if chat and fields.max_completion_tokens is not None:
        if asked not in (None, fields.max_completion_tokens):
            raise ParameterError(owner, "max_tokens", "left out beside max_completion_tokens", asked)
        asked, name = fields.max_completion_tokens, "max_completion_tokens"
    if asked is not None and asked > most:
        raise ParameterError(owner, name, f"a whole number <= {most}, the limit of this server", asked)
    room = most if engine.context is None else engine.context - prompt
    if asked is None:
        asked = max(1, min(most, room)) if chat else min(COMPLETION_TOKENS, most)
    if asked > room:
        rule = f"at most {max(room, 0)}, since the model reads {engine.context} tokens and the prompt has {prompt}"
        raise ContextError(owner, name, rule, asked, "lower it, or shorten the prompt")
    return int(asked)


def _prompts_of(engine: Engine, owner: str, fields: Any) -> list[Prompt]:
    """Return the prompts of a request.

    Raises:
        ParameterError: no prompt, an unknown token, or a message that is no text.
    """
    if isinstance(fields, ChatFields):
        template = fields.chat_template_kwargs or {}
        own = set(inspect.signature(engine.tokenizer.apply_chat_template).parameters) - TEMPLATE_ARGUMENTS
        if wrong := sorted(own & set(template)):  # such as chat_template, a program of the client's
            raise ParameterError(owner, "chat_template_kwargs", "arguments that the template reads", wrong[0])
        if not fields.messages:
            raise ParameterError(owner, "messages", "at least one message", fields.messages)
        return [Prompt(value=tuple(_message(owner, each) for each in fields.messages), kind="chat", template=template)]
    given, size = fields.prompt, vocabulary_size(engine.model)
    several = isinstance(given, list) and not all(_is_token(item, size) for item in given)
    prompts = []
    for item in given if several else [given]:
        if isinstance(item, str):
            prompts.append(Prompt(value=item, kind="text"))
        elif isinstance(item, list) and item and all(_is_token(token, size) for token in item):
            prompts.append(Prompt(value=tuple(item), kind="tokens"))
        else:
            rule = f"a text, at least one token id in [0, {size}), or a list of either"
            raise ParameterError(owner, "prompt", rule, item)
    return prompts


def _is_token(value: Any, size: int) -> bool:
    """Return whether a value is a token id below a size."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size


def _message(owner: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is one text.

    Raises:
        ParameterError: a message without role, with a content that is no text, or with calls of tools.
    """
    if not isinstance(message.get("role"), str):
        raise ParameterError(owner, "messages", "messages with a role", message)
    if message["role"] in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
        raise ParameterError(owner, "messages", "messages without tools", message, "this server calls no tools")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part["text"] for part in content if _is_text(part)]
        content = "".join(parts) if len(parts) == len(content) else None
    if not isinstance(content, str):
        raise ParameterError(owner, "messages", "messages whose content is text", message.get("content"))
    name = {"name": message["name"]} if isinstance(message.get("name"), str) else {}
    return {"role": message["role"], "content": content, **name}


def _is_text(part: Any) -> bool:
    """Return whether a part of a message is a text."""
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
