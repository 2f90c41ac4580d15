"""The prompts of one generate call: what every row of tokens starts with.

A processor never sees an attention mask and is never told which prompt a row belongs to; both are
known when a chain is bound, and kept here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError, PromptError
from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.processors.engine.memo import Memo
from logitkit.processors.model_facts import end_tokens

Message = Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompts:
    """Prompts as the model reads them, and as text.

    Attributes:
        ids: token ids, ``[prompts, width]``, padded on the left.
        mask: 1 where a token counts, 0 on padding; same shape.
        texts: each prompt as text (a chat prompt: after its template).
        messages: the chat messages of each prompt, or ``None``.
        adds_specials: whether encoding a text anew must add the tokenizer's special tokens.
        in_encoder: the model reads its prompt in an encoder; its rows hold decoder tokens only.
        removed: bytes cut from the end of each prompt, with which its continuation begins; empty: none.
    """

    ids: Tensor
    mask: Tensor
    texts: tuple[str, ...]
    messages: tuple[tuple[Message, ...] | None, ...]
    adds_specials: bool
    in_encoder: bool = False
    removed: tuple[bytes, ...] = ()
    prompt_index_memo: Memo[Tensor] = field(default_factory=Memo, init=False, repr=False)
    growth_memo: Memo[Tensor] = field(default_factory=Memo, init=False, repr=False)
    deferred_checks: DeferredChecks = field(default_factory=DeferredChecks, init=False, repr=False)

    @cached_property
    def padded(self) -> bool:
        """Whether any prompt is shorter than the others."""
        return not bool(self.mask.all())

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """How many leading tokens of a row are prompt (padding included)."""
        return 0 if self.in_encoder else self.ids.shape[1]

    def tokens(self, prompt: int) -> list[int]:
        """Token ids of one prompt, without padding."""
        return list(self.ids[prompt][self.mask[prompt].bool()].tolist())

    def rows(self, input_ids: Tensor) -> Tensor:
        """Say which prompt each row continues.

        `generate` lays out ``expansion`` rows a prompt, so ``row // expansion`` is tried first, and
        then the content. Equal prompts with unequal second prompts can only be told apart by place.

        Args:
            input_ids: ``[rows, length]``.

        Returns:
            Prompt numbers, ``[rows]``.

        Raises:
            PromptError: a row starts with none of the prompts.
        """
        known = self.prompt_index_memo.get(input_ids)
        return self.prompt_index_memo.put(self._match(input_ids), input_ids) if known is None else known

    def grew_by_one(self, before: Tensor, input_ids: Tensor) -> Tensor | None:
        """Whether these are the rows of before and one token more, a bool on the device; None: not by their shape."""
        if input_ids.shape != (before.shape[0], before.shape[1] + 1):
            return None
        known = self.growth_memo.get(before, input_ids)
        if known is None:
            known = self.growth_memo.put((input_ids[:, :-1] == before).all(), before, input_ids)
        return known

    def _match(self, input_ids: Tensor) -> Tensor:
        """Find each row's prompt, by place and then by content."""
        count = input_ids.shape[0]
        heads = input_ids[:, : self.width]  # [rows, width]
        known = self.ids[:, : self.width].to(input_ids.device)  # [prompts, width]
        if count % len(self) == 0:
            index = torch.arange(count, device=input_ids.device) // (count // len(self))
            if torch.equal(heads, known[index]):
                return index
        if self.in_encoder or heads.shape[1] < self.width:
            raise PromptError(_stray(input_ids, self))
        match = (heads[:, None] == known[None]).all(-1)  # [rows, prompts]
        if not bool(match.any(-1).all()):
            raise PromptError(_stray(input_ids[~match.any(-1)], self))
        return match.int().argmax(-1)

    def encode(self, tokenizer: Any, text: str) -> list[int]:
        """Encode another text the way these prompts were encoded."""
        return list(tokenizer(text, add_special_tokens=self.adds_specials)["input_ids"])


def _stray(rows: Tensor, prompts: Prompts) -> str:
    """Word the refusal of rows that continue no bound prompt."""
    head = rows[0, : prompts.width][:8].tolist() if len(rows) else []
    return (
        f"logitkit: every row must start with a prompt of this call ({len(prompts)} of {prompts.width} tokens), "
        f"got {rows.shape[0]} row(s) of {rows.shape[1]} tokens starting {head}; bind the chain to these prompts, "
        "pass **call.inputs to generate, and input_ids rather than inputs_embeds"
    )


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Stack token rows of unequal length: ids and mask, ``[rows, longest]``, padded on the left."""
    width = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        if row:
            ids[number, width - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask[number, width - len(row) :] = 1
    return ids, mask


def pad_token(tokenizer: Any, model: Any) -> int:
    """Token id used for padding: the tokenizer's pad token, else its end token, else the model's, else 0.

    Padding is masked, so which token it is changes no result.
    """
    config = model.generation_config
    choices = (tokenizer.pad_token_id, config.pad_token_id, *end_tokens(model, tokenizer), 0)
    return int(next(choice for choice in choices if choice is not None))


def read_prompts(tokenizer: Any, model: Any, prompts: Any) -> Prompts:
    """Read prompts given as text, texts, chat messages, a list of chats, or encoded inputs.

    Raises:
        PromptError: no prompt, a prompt without tokens, embeddings instead of ids, or another type.
    """
    in_encoder = bool(model.config.is_encoder_decoder)
    pad = pad_token(tokenizer, model)
    if isinstance(prompts, Mapping) and "role" not in prompts:
        return _encoded(tokenizer, prompts, pad, in_encoder)
    items = [prompts] if isinstance(prompts, (str, Mapping)) or _is_chat(prompts) else prompts
    if not isinstance(items, Sequence) or not items:
        raise PromptError(
            f"bind: prompts must be text, chat messages, a list of either, or encoded inputs, got {prompts!r}"
        )
    chats = [[item] if isinstance(item, Mapping) else item for item in items]
    if all(isinstance(item, str) for item in items):
        rows = [list(tokenizer(text)["input_ids"]) for text in items]
        texts = tuple(items)
        messages: tuple[tuple[Message, ...] | None, ...] = (None,) * len(items)
    elif all(_is_chat(chat) for chat in chats):
        texts = tuple(apply_template(tokenizer, chat) for chat in chats)
        rows = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        messages = tuple(tuple(chat) for chat in chats)
    else:
        raise PromptError("bind: prompts must all be text or all be chat messages (dicts with a role), got a mixture")
    for number, row in enumerate(rows):
        if not row:
            raise PromptError(f"bind: prompt {number} has no tokens; give it text (this tokenizer adds no begin token)")
    ids, mask = left_padded(rows, pad)
    return Prompts(
        ids=ids.to(model.device),
        mask=mask.to(model.device),
        texts=texts,
        messages=messages,
        adds_specials=messages[0] is None,
        in_encoder=in_encoder,
    )


def apply_template(tokenizer: Any, chat: Sequence[Message]) -> str:
    """Write chat messages as the text the model expects, ready for its answer."""
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("bind: chat messages need a tokenizer with a chat template; pass plain text instead")
    return str(tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True))


def _is_chat(value: Any) -> bool:
    """Say whether this is one chat: a non-empty list of messages with roles."""
    return isinstance(value, Sequence) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)


def _encoded(tokenizer: Any, inputs: Mapping[str, Any], pad: int, in_encoder: bool) -> Prompts:
    """Read a BatchEncoding; padding on the right is moved to the left, where generation needs it."""
    if "inputs_embeds" in inputs or "input_ids" not in inputs:
        raise PromptError("bind: encoded prompts must hold input_ids (not inputs_embeds), got " + ", ".join(inputs))
    extra = sorted(set(inputs) - {"input_ids", "attention_mask", "token_type_ids"})
    if extra:
        raise PromptError(
            f"bind: encoded prompts must hold input_ids and attention_mask only, got also {', '.join(extra)}"
        )
    ids = torch.as_tensor(inputs["input_ids"])
    mask = torch.as_tensor(inputs.get("attention_mask", torch.ones_like(ids)))
    if ids.ndim != 2 or ids.shape != mask.shape or not ids.numel():
        raise PromptError(
            f"bind: input_ids and attention_mask must be [prompts, tokens], got {[*ids.shape]} and {[*mask.shape]}"
        )
    if bool((mask[:, 1:] < mask[:, :-1]).any()):  # padding after text
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        padded, marks = left_padded(rows, pad)
        ids, mask = padded.to(ids.device), marks.to(ids.device)
    if not bool(mask.any(-1).all()):
        raise PromptError("bind: every prompt must have a token, got one that is all padding")
    texts = tuple(tokenizer.decode(row[keep.bool()]) for row, keep in zip(ids, mask, strict=True))
    return Prompts(
        ids=ids,
        mask=mask,
        texts=texts,
        messages=(None,) * len(texts),
        adds_specials=False,
        in_encoder=in_encoder,
    )
