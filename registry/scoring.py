"""Log-likelihood of given texts under a chain: teacher forced, through the processors.

The model reads prompt and text in one forward. The chain is then asked at each token as `generate` would ask it,
with the row so far and the model's scores there. Second streams of the same vocabulary read the whole text in one
chunk beforehand. The law is that of drawing: the softmax of what the chain returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.engine.prompts import pad_token
from logitkit.processors.engine.streams import Stream
from logitkit.processors.model_facts import context_length
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.vocabulary import vocabulary_of
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.registry.scored_text import Scored


def score(
    chain: Chain,
    model: Any,
    tokenizer: Any,
    prompt: str,
    options: Sequence[str],
    *,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
) -> tuple[list[Scored], Call]:
    """Score texts that may follow a prompt.

    A text is written in the tokens that the tokenizer gives prompt and text together, where those begin with the
    prompt's own; else in the tokens of the text by itself. Behind a prompt that was cut (``byte_boundary``) the text
    begins with the bytes that were removed.

    Args:
        chain, model, tokenizer, resources, tokenizers: as in `Chain.bind`.
        prompt: the text before.
        options: one or more texts, none empty.

    Returns:
        A score for each option, and the call, whose trace says what it took.

    Raises:
        ModelError: a model with an encoder, or a text that does not fit it.
    """
    if model.config.is_encoder_decoder:
        raise ModelError("log-likelihood: the model must be decoder-only; choose a task that generates")
    call = chain.bind(model, tokenizer, [prompt] * len(options), tokenizers=tokenizers, **(resources or {}))
    rows = [continuation(call, number, option) for number, option in enumerate(options)]
    scored = [
        Scored(logp=tuple(p for p, _ in each), greedy=tuple(g for _, g in each), bytes=len(option.encode()))
        for each, option in zip(forced(call, rows), options, strict=True)
    ]
    return scored, call


def forced(call: Call, rows: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
    """Ask a chain at each token of given rows.

    Args:
        call: bound to one prompt a row, of a decoder-only model.
        rows: token ids behind each prompt, none empty.

    Returns:
        For each token of each row its log-probability in nats, and whether it is the likeliest.

    Raises:
        ModelError: a row that does not fit the model.
    """
    ids = _stacked(call, rows)
    longest, width = max(map(len, rows)), call.prompts.width
    _check_context(call.model, ids.shape[1])
    scores = _teacher_forced(call, ids, longest)  # [rows, longest, vocab]
    _read_ahead(call, ids, longest)
    found: list[list[tuple[float, bool]]] = [[] for _ in rows]
    for place in range(longest):
        processed = call.composite(ids[:, : width + place], scores[:, place])
        logp = processed.double().log_softmax(-1)
        wanted = ids[:, width + place]
        own = logp.gather(-1, wanted[:, None])[:, 0]
        greedy = processed.argmax(-1) == wanted
        for number, row in enumerate(rows):
            if place < len(row):
                found[number].append((float(own[number]), bool(greedy[number])))
    return found


def continuation(call: Call, number: int, text: str) -> list[int]:
    """Token ids of a text behind a prompt of a call, the bytes that were cut from the prompt first."""
    given, own = call.user_prompts, call.prompts.tokens(number)
    whole = given.encode(call.tokenizer, given.texts[number] + text)
    if whole[: len(own)] == own and len(whole) > len(own):
        return whole[len(own) :]
    removed = call.prompts.removed[number] if call.prompts.removed else b""
    vocabulary = vocabulary_of(call.model, call.tokenizer)
    return list(Retokenizer(vocabulary, call.tokenizer, vocabulary).of_bytes([removed + text.encode()])[0])


def _stacked(call: Call, rows: Sequence[Sequence[int]]) -> Tensor:
    """Prompts and texts, ``[rows, width + longest]``; a shorter row goes on with padding, as in `generate`."""
    tail = torch.full((len(rows), max(map(len, rows))), pad_token(call.tokenizer, call.model), dtype=torch.long)
    for number, row in enumerate(rows):
        tail[number, : len(row)] = torch.tensor(row)
    return torch.cat([call.prompts.ids, tail.to(call.prompts.ids.device)], dim=1)


@torch.no_grad()
def _teacher_forced(call: Call, ids: Tensor, longest: int) -> Tensor:
    """The model's fp32 scores before each token of the texts, ``[rows, longest, vocab]``."""
    extra: dict[str, Any] = {}
    if call.prompts.padded:
        mask = torch.cat([call.prompts.mask, torch.ones_like(ids[:, call.prompts.width : -1])], dim=1)
        extra = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
    logits = call.model(input_ids=ids[:, :-1], **extra).logits
    return logits[:, -longest:].float()  # type: ignore[no-any-return]


def _read_ahead(call: Call, ids: Tensor, longest: int) -> None:
    """Let second streams of the same vocabulary read every text in one chunk; what they know they need not read."""
    for reader in call.trace.readers.values():
        if isinstance(reader, Stream) and reader.fusable:  # one forward reads several positions
            reader.positions(ids[:, :-1], longest)


def _check_context(model: Any, tokens: int) -> None:
    context = context_length(model)
    if context is not None and tokens - 1 > context:  # the last token is not read
        raise ModelError(f"log-likelihood: prompt and text must fit the model's {context} tokens, got {tokens}")
