"""Log-probabilities of given texts under a chain, by teacher forcing.

The generating model reads prompt and text in one forward. The chain is then called at each token as `generate` would
call it: with the row before the token and the model's scores there. Second streams that can read several positions
read the whole text beforehand, in one chunk. The log-probability of a token is that of sampling: the log-softmax of
the scores that the chain returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModeError, ModelError, ParameterError
from logitkit.params import is_valid_unicode
from logitkit.processors.engine.chats import is_chat
from logitkit.processors.engine.continuation_tokens import continuation_tokens as tokens_behind
from logitkit.processors.engine.inputs_reader import InputsReader
from logitkit.processors.engine.prompts import pad_token
from logitkit.processors.engine.streams import Stream
from logitkit.processors.model_facts import context_length
from logitkit.processors.tokens.vocabulary import vocabulary_of
from logitkit.registry.bind import bind, check_pair
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.registry.scored_text import Scored


def score(
    chain: Chain,
    model: Any,
    tokenizer: Any,
    prompts: Any,
    continuations: Sequence[str],
    *,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    template: Mapping[str, Any] | None = None,
    warn: bool = True,
) -> tuple[list[Scored], Call]:
    """Score texts, each after its prompt.

    Prompt and continuation are tokenized together if the result begins with the tokens of the prompt. Otherwise the
    continuation is tokenized separately. After a shortened prompt (``byte_boundary``), the continuation begins with
    the removed bytes.

    Args:
        chain, model, tokenizer, resources, tokenizers, template: as in `Chain.bind`.
        prompts: one text or chat for all continuations, or one prompt for each, as in `Chain.bind`.
        continuations: one or more texts, none empty.
        warn: give a `NoEffectWarning` where a step of the chain can change no score.

    Returns:
        A `Scored` for each continuation, and the call, whose trace counts the forwards.

    Raises:
        ModeError: a chain with a search or a selector.
        ModelError: a model with an encoder, or prompt and continuation longer than the context of the model.
        ParameterError: an empty continuation, text with lone surrogates, or another number of prompts than
            of continuations.
    """
    check_pair("score", model, tokenizer)
    if model.config.is_encoder_decoder:
        raise ModelError("score: the model must be decoder-only; generate with an encoder-decoder model instead")
    refuse_searches(chain, "score")
    if not continuations or not all(isinstance(text, str) and text for text in continuations):
        raise ParameterError("score", "continuations", "one or more texts, none empty", continuations)
    if not is_valid_unicode(list(continuations)):
        raise ParameterError("score", "continuations", "valid Unicode", continuations, "remove the lone surrogates")
    one_for_all = isinstance(prompts, str) or is_chat(prompts)
    prompts = [prompts] * len(continuations) if one_for_all else prompts
    options: dict[str, Any] = {"tokenizers": tokenizers, "resources": resources, "template": template, "warn": warn}
    call = bind(chain, model, tokenizer, prompts, trace=False, **options)
    if len(call.prompts) != len(continuations):
        rule = f"one text or chat, or one for each of the {len(continuations)} continuations"
        raise ParameterError("score", "prompts", rule, len(call.prompts))
    rows = [continuation_tokens(call, number, text) for number, text in enumerate(continuations)]
    pairs = zip(score_tokens(call, rows), continuations, strict=True)
    return [_scored(tokens, text) for tokens, text in pairs], call


def refuse_searches(chain: Chain, owner: str) -> None:
    """Refuse a chain with a search or a selector, under which a text has no probability.

    Args:
        chain: the chain.
        owner: what scores, for the error.

    Raises:
        ModeError: names the search.
    """
    refused = next((spec for spec in chain.specs if spec.kind != "processor"), None)
    if refused is not None:
        why = refused.modes["loglikelihood"]
        raise ModeError(f"{owner}: {refused.name} must be left out, {why}; score the steps alone")


def _scored(tokens: Sequence[tuple[float, bool]], text: str) -> Scored:
    """Return the scores of the tokens of a text."""
    logp, greedy = zip(*tokens, strict=True)
    return Scored(logp=logp, greedy=greedy, bytes=len(text.encode()))


def score_tokens(call: Call, rows: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
    """Score given tokens after the prompts of a call.

    Args:
        call: bound to one prompt for each row, of a decoder-only model.
        rows: token ids after each prompt, none empty.

    Returns:
        For each token of each row its log-probability in nats, and whether it is the likeliest token there.

    Raises:
        ModelError: a row that is longer than the context of the model.
    """
    results: list[list[tuple[float, bool]]] = [[] for _ in rows]
    for left, processed, tokens in scores_along(call, rows):
        logp = processed.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]  # [rows left]
        greedy = processed.argmax(-1) == tokens
        for number, value, likeliest in zip(left, logp.tolist(), greedy.tolist(), strict=True):
            results[number].append((value, likeliest))
    return results


def scores_along(call: Call, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield what the chain makes of the scores before each token of given texts, place by place.

    Args:
        call, rows: as for `score_tokens`.

    Yields:
        The numbers of the rows that have a token at the place, the scores of the chain, ``[rows left, vocab]``, and
        the tokens, ``[rows left]``.

    Raises:
        ModelError: a row that is longer than the context of the model.
    """
    ids = _stacked(call, rows)
    longest, width = max(map(len, rows)), call.prompts.width
    _check_context(call.model, ids.shape[1])
    scores = _teacher_forced(call, ids, longest)  # [rows, longest, vocab]
    _read_ahead(call, ids, longest)
    for place in range(longest):
        # A text that has ended is left out: the chain sees no row that generate would not show it.
        left = [number for number, row in enumerate(rows) if place < len(row)]
        prefixes, before, tokens = ids[:, : width + place], scores[:, place], ids[:, width + place]
        if len(left) < len(rows):
            prefixes, before, tokens = prefixes[left], before[left], tokens[left]
        yield left, call.composite(prefixes, before), tokens


def continuation_tokens(call: Call, number: int, text: str) -> list[int]:
    """Return the token ids of a text after prompt ``number`` of a call.

    The bytes that a processor removed from the end of the prompt come first.
    """
    vocabulary = vocabulary_of(call.model, call.tokenizer)
    whole = call.user_prompts.texts[number]
    return tokens_behind(call.prompts, number, text, call.tokenizer, vocabulary, whole=whole)


def _stacked(call: Call, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return prompts and texts, ``[rows, width + longest]``; padding follows a shorter row, as in `generate`."""
    tail = torch.full((len(rows), max(map(len, rows))), pad_token(call.tokenizer, call.model), dtype=torch.long)
    for number, row in enumerate(rows):
        tail[number, : len(row)] = torch.tensor(row)
    return torch.cat([call.prompts.ids, tail.to(call.prompts.ids.device)], dim=1)


@torch.no_grad()
def _teacher_forced(call: Call, ids: Tensor, longest: int) -> Tensor:
    """Return the model's fp32 logits before each token of the texts, ``[rows, longest, vocab]``."""
    if call.prompts.inputs:
        own = [call.prompts.tokens(number) for number in range(len(call.prompts))]
        reader = InputsReader(call.model, own, call.prompts, inputs=call.prompts.inputs)
        return reader.positions(ids[:, :-1], longest)
    masks: dict[str, Any] = {}
    if call.prompts.padded:
        mask = torch.cat([call.prompts.mask, torch.ones_like(ids[:, call.prompts.width : -1])], dim=1)
        masks = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
    if "logits_to_keep" in inspect.signature(call.model.forward).parameters:  # the head is a fifth of a small model
        masks["logits_to_keep"] = longest
    logits = call.model(input_ids=ids[:, :-1], **masks).logits
    return logits[:, -longest:].float()  # type: ignore[no-any-return]


def _read_ahead(call: Call, ids: Tensor, longest: int) -> None:
    """Let second streams read every text in one chunk; their caches then serve the calls of the chain."""
    for reader in call.trace.readers.values():
        if isinstance(reader, Stream) and reader.fusable:  # one forward reads several positions
            reader.positions(ids[:, :-1], longest)


def _check_context(model: Any, tokens: int) -> None:
    """Refuse texts that the model cannot read; the last token of a text is scored and not read."""
    context = context_length(model)
    if context is not None and tokens - 1 > context:
        raise ModelError(f"score: prompt and text must fit the model's {context} tokens, got {tokens}")
