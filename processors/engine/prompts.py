"""The prompts of one `generate` call.

A processor receives neither the attention mask nor the number of the prompt that a row continues. Both are known when
a chain is bound to its prompts, and `Prompts` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import PromptError
from logitkit.params import is_valid_unicode
from logitkit.processors.engine.chats import Message, apply_template, is_chat
from logitkit.processors.engine.dead_ends import DeadEnds
from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.processors.engine.encoded_prompts import read_encoding
from logitkit.processors.engine.memo import Memo
from logitkit.processors.engine.padded_rows import padded_for
from logitkit.processors.model_facts import end_tokens


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompts:
    """The prompts of one call as token ids and as text. `read_prompts` builds them.

    Attributes:
        ids: token ids, ``[prompts, width]``, padded on the left; prompts of an encoder are padded on the right.
        mask: 1 for a token of the prompt, 0 for padding; ``[prompts, width]``.
        texts: each prompt as text; a chat prompt after its template.
        messages: the chat messages of each prompt, or ``None``.
        adds_specials: whether `encode` adds the special tokens of the tokenizer.
        in_encoder: whether the model reads its prompt in an encoder; rows then hold decoder tokens only.
        removed: bytes cut from the end of each prompt, with which the continuation begins; empty: none were cut.
        inputs: what the prompts hold besides tokens, such as ``pixel_values``, by the name that `generate` knows.
        template: arguments of the chat template, such as ``tools``.

    Example:
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), ["one", "another"])
        >>> len(prompts), prompts.width, prompts.mask[0].tolist()
        (2, 7, [0, 0, 0, 0, 1, 1, 1])
    """

    ids: Tensor
    mask: Tensor
    texts: tuple[str, ...]
    messages: tuple[tuple[Message, ...] | None, ...]
    adds_specials: bool
    in_encoder: bool = False
    removed: tuple[bytes, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)
    prompt_index_memo: Memo[Tensor] = field(default_factory=Memo, init=False, repr=False)
    part_index_memo: Memo[Tensor] = field(default_factory=Memo, init=False, repr=False)  # some rows of a batch
    growth_memo: Memo[Tensor] = field(default_factory=Memo, init=False, repr=False)
    deferred_checks: DeferredChecks = field(default_factory=DeferredChecks, init=False, repr=False)
    places: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)
    dead_ends: DeadEnds = field(default_factory=DeadEnds, init=False, repr=False)

    @cached_property
    def padded(self) -> bool:
        """Whether any prompt is padded."""
        return not bool(self.mask.all())

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """Number of tokens of a row before its continuation, padding included; 0 with an encoder."""
        return 0 if self.in_encoder else self.ids.shape[1]

    def name(self, prompt: int) -> str:
        """Return what notices call a prompt: its number, or just "the prompt" where there is only one."""
        return f"prompt {prompt}" if len(self) > 1 else "the prompt"

    def tokens(self, prompt: int) -> list[int]:
        """Return the token ids of one prompt, without padding."""
        return list(self.ids[prompt][self.mask[prompt].bool()].tolist())

    def rows(self, input_ids: Tensor) -> Tensor:
        """Return the number of the prompt that each row continues.

        `generate` places the rows of one prompt together, so the place of a row is tried first, then its content.
        Equal prompts with different second prompts differ by place alone.

        Args:
            input_ids: ``[rows, length]``.

        Returns:
            Numbers of prompts, ``[rows]``.

        Raises:
            PromptError: a row starts with none of the prompts.
        """
        for memo in (self.prompt_index_memo, self.part_index_memo):
            if (known := memo.get(input_ids)) is not None:
                return known
        return self.prompt_index_memo.put(self._match(input_ids), input_ids)

    def grew_by_one(self, before: Tensor, input_ids: Tensor) -> Tensor | None:
        """Return whether rows are the rows of an earlier step with one more token each.

        Args:
            before: rows of the earlier step, ``[rows, length]``.
            input_ids: ``[rows, length]``.

        Returns:
            A bool tensor on the device; None when the shapes already show that they are not.
        """
        if input_ids.shape != (before.shape[0], before.shape[1] + 1):
            return None
        known = self.growth_memo.get(before, input_ids)
        if known is None:
            known = self.growth_memo.put((input_ids[:, :-1] == before).all(), before, input_ids)
        return known

    def _match(self, input_ids: Tensor) -> Tensor:
        """Find the prompt of each row, by place and then by content."""
        count = input_ids.shape[0]
        starts = input_ids[:, : self.width]  # [rows, width]
        if count % len(self) == 0:
            index, expected = self._in_place(count, input_ids.device)
            if starts.shape[1] == self.width and self._are_in_place((starts == expected).all()):
                return index
        if self.in_encoder or starts.shape[1] < self.width:
            raise PromptError(_unknown_rows(input_ids, self))
        known = self.ids[:, : self.width].to(input_ids.device)  # [prompts, width]
        match = (starts[:, None] == known[None]).all(-1)  # [rows, prompts]
        if not bool(match.any(-1).all()):
            raise PromptError(_unknown_rows(input_ids[~match.any(-1)], self))
        return match.int().argmax(-1)

    def _in_place(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the prompt of each place among ``count`` rows, and the beginnings of such rows; kept for later steps.

        The tensors must not be written to.
        """
        known = self.places.get((count, device))
        if known is None:
            index = torch.arange(count, device=device) // (count // len(self))
            known = index, self.ids[:, : self.width].to(device)[index]
            self.places.clear()
            self.places[count, device] = known
        return known

    def _are_in_place(self, equal: Tensor) -> bool:
        """Return whether rows begin with the prompts of their places; assumed inside a step once this was so."""
        checks = self.deferred_checks
        if checks.assumes_places:
            return checks.check(equal, self._forget_places)
        in_place = bool(equal)
        checks.assumes_places = in_place if checks.assumes_places is None else False
        return in_place

    def _forget_places(self) -> None:
        """Compare the rows with the prompts at once from now on."""
        self.prompt_index_memo.clear()
        self.deferred_checks.assumes_places = False

    def encode(self, tokenizer: Any, text: str) -> list[int]:
        """Return the token ids of another text, with special tokens if these prompts have them."""
        return list(tokenizer(text, add_special_tokens=self.adds_specials)["input_ids"])


def _unknown_rows(rows: Tensor, prompts: Prompts) -> str:
    """Return the error message for rows that continue no bound prompt."""
    start = rows[0, : prompts.width][:8].tolist() if len(rows) else []
    return (
        f"logitkit: every row must start with a prompt of this call ({len(prompts)} of {prompts.width} tokens), "
        f"got {rows.shape[0]} row(s) of {rows.shape[1]} tokens starting {start}; bind the chain to these prompts, "
        "pass **call.inputs to generate, input_ids rather than inputs_embeds, no token_healing, no assistant_tokenizer"
    )


def pad_token(tokenizer: Any, model: Any) -> int:
    """Return the id used for padding. Padding is masked, so the id changes no result.

    The first of these ids that exists: the pad token of the tokenizer, the pad token of the model, the end tokens of
    tokenizer and model, 0.

    Args:
        tokenizer: the model's tokenizer.
        model: a model with a ``generation_config``.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> pad_token(tiny_tokenizer(), tiny_model())
        258
    """
    config = model.generation_config
    choices = (tokenizer.pad_token_id, config.pad_token_id, *end_tokens(model, tokenizer), 0)
    return int(next(choice for choice in choices if choice is not None))


def read_prompts(tokenizer: Any, model: Any, prompts: Any, *, template: Mapping[str, Any] | None = None) -> Prompts:
    """Return the prompts of a call in the form that processors use.

    Args:
        tokenizer: the model's tokenizer.
        model: the generating model.
        prompts: a text, a list of texts, a chat (messages with a role), a list of chats, or a ``BatchEncoding``. An
            encoding may hold further inputs that `generate` takes, such as ``pixel_values``.
        template: arguments of the chat template; see `apply_template`.

    Raises:
        PromptError: no prompt, a prompt without tokens, text with lone surrogates, chat messages that the template
            refuses, encoded inputs that the model cannot read, or another type.
        ModelError: chat messages, and a tokenizer without a chat template.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), ["one", "another"])
        >>> prompts.texts, prompts.ids.shape
        (('one', 'another'), torch.Size([2, 7]))
    """
    in_encoder = bool(model.config.is_encoder_decoder)
    pad = pad_token(tokenizer, model)
    if isinstance(prompts, Mapping) and "role" not in prompts:
        return replace(_encoded(tokenizer, prompts, pad, model), template=dict(template or {}))
    items = [prompts] if isinstance(prompts, (str, Mapping)) or is_chat(prompts) else prompts
    if not isinstance(items, Sequence) or not items:
        raise PromptError(
            f"bind: prompts must be text, chat messages, a list of either, or encoded inputs, got {prompts!r}"
        )
    texts, messages = _texts_and_messages(tokenizer, items, template or {})
    for number, text in enumerate(texts):
        if not is_valid_unicode(text):
            raise PromptError(f"bind: prompt {number} must be valid Unicode, got a lone surrogate; remove it")
    specials = messages[0] is None  # the text of a chat already contains its special tokens
    rows = [list(tokenizer(text, add_special_tokens=specials)["input_ids"]) for text in texts]
    for number, row in enumerate(rows):
        if not row:
            raise PromptError(f"bind: prompt {number} has no tokens; give it text (this tokenizer adds no begin token)")
    ids, mask = padded_for(rows, pad, in_encoder=in_encoder)
    ids, mask = (tensor.to(model.device) for tensor in (ids, mask))
    further: dict[str, Any] = {"in_encoder": in_encoder, "template": dict(template or {})}
    return Prompts(ids=ids, mask=mask, texts=texts, messages=messages, adds_specials=specials, **further)


def _texts_and_messages(
    tokenizer: Any, items: Sequence[Any], template: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[tuple[Message, ...] | None, ...]]:
    """Return the text of each prompt, and its chat messages or None.

    Raises:
        PromptError: neither texts nor chats, or a mixture.
    """
    if all(isinstance(item, str) for item in items):
        return tuple(items), (None,) * len(items)
    chats = [[item] if isinstance(item, Mapping) else item for item in items]
    if not all(is_chat(chat) for chat in chats):
        raise PromptError("bind: prompts must all be text or all be chat messages (dicts with a role), got a mixture")
    texts = tuple(apply_template(tokenizer, chat, template) for chat in chats)
    return texts, tuple(tuple(chat) for chat in chats)


def _encoded(tokenizer: Any, inputs: Mapping[str, Any], pad: int, model: Any) -> Prompts:
    """Return the prompts of a ``BatchEncoding``; padding is moved to the side that the model needs."""
    ids, mask, further = read_encoding(model, inputs, pad)
    texts = tuple(tokenizer.decode(row[keep.bool()]) for row, keep in zip(ids, mask, strict=True))
    in_encoder = bool(model.config.is_encoder_decoder)
    messages = (None,) * len(texts)
    fields: dict[str, Any] = {"texts": texts, "messages": messages, "in_encoder": in_encoder, "inputs": further}
    return Prompts(ids=ids, mask=mask, adds_specials=False, **fields)
