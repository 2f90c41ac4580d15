"""Continuation of a prompt that ends inside a token, by the exact conditional distribution.

A prompt that ends inside a token fixes its own tokenization, and the model then never continues it with the token
that would have spanned the end of the prompt (tokenization bias: Phan et al., arXiv:2410.09303; Hayase et al.,
arXiv:2506.14123). `ByteBoundary` trims the prompt to the last token that all covers of its bytes share. The first
new tokens must then spell the removed bytes again: a token r after a prefix t has the weight

    p(r | t) * P(the rest of the removed bytes follows t r),

which is the conditional distribution of the model given the removed bytes. Token healing and hard masks leave the
second factor out. After the removed bytes are spelled, the processor returns the scores unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ScoresError
from logitkit.params import Resource, checked, option
from logitkit.processors.byte_level.continuation_table import ContinuationTable, PathReader, continuation_table
from logitkit.processors.byte_level.covers import CoverKind, Covers
from logitkit.processors.byte_level.prompt_trimming import (
    TrimmedPrompt,
    described_end,
    text_behind_special_tokens,
    trim,
)
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.kv_tree import KVTree
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.processors.engine.prompts import Prompts, pad_token
from logitkit.processors.engine.scores import with_infinite_masks
from logitkit.processors.engine.tree_check import check_tree
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.tokenizer_tables import FOLDER, TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary


class ByteBoundary(LogitsProcessor):
    """Makes continuations begin with the bytes removed from their prompts, by the exact conditional distribution.

    Args:
        prompts: the trimmed prompts.
        trimmed: the prompts with the bytes removed from each.
        covers: the token sequences that are summed over.
        model: the generating model; it reads the paths inside the removed bytes once, at the first call.

    Attributes:
        path_reader: reads the paths; counts forward passes and tokens.

    >>> import logitkit
    >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer
    >>> call = logitkit.chain("byte_boundary()").bind(foreign_model(), foreign_tokenizer(), "on th")
    >>> call.trace.notices
    ['byte_boundary: 3 bytes are removed from the end of the prompt']
    """

    @checked
    def __init__(
        self,
        *,
        prompts: Annotated[Prompts, Resource()],
        trimmed: Annotated[Sequence[TrimmedPrompt], Resource()],
        covers: Annotated[Covers, Resource()],
        model: Annotated[Any, Resource()],
    ) -> None:
        self._prompts, self._trimmed, self._covers = prompts, trimmed, covers
        self.path_reader = PathReader(model)
        self._table: ContinuationTable | None = None

    def __reduce__(self) -> Any:
        raise ModelError("byte_boundary: cannot be pickled, it holds a model; pickle the chain and bind it again")

    @classmethod
    def prepare(cls, binding: Binding, *, covers: CoverKind = "canonical") -> Prompts | None:
        """Return the trimmed prompts; None for chats, which end where their template ends, and encoder prompts.

        Args:
            binding: the call.
            covers: without effect here: prompts are always trimmed by canonical covers.
        """
        prompts = binding.prompts
        if prompts.in_encoder or prompts.messages[0] is not None:
            binding.trace.notices.append("byte_boundary: chats and encoder prompts are complete; nothing is removed")
            binding.no_effect["byte_boundary"] = (
                "chats and encoder prompts end where their template ends, not inside a token",
                "write the prompt as one text, or leave byte_boundary out",
            )
            return None
        vocabulary, canonical = _vocabulary(binding), _covers(binding, "canonical")
        own = binding.own_prompts()
        trimmed = [trim(tokens, binding.tokenizer, vocabulary, canonical) for tokens in own]
        for number, (tokens, (_, removed)) in enumerate(zip(own, trimmed, strict=True)):
            binding.trace.notices.append(
                f"byte_boundary: {len(removed)} bytes are removed from the end of {prompts.name(number)}"
                + described_end(tokens, binding.tokenizer, vocabulary)
            )
        if not any(removed for _, removed in trimmed):
            binding.no_effect["byte_boundary"] = (
                "no prompt ends inside a token",
                "cut the prompts where the text may go on, or leave byte_boundary out",
            )
        ids, mask = left_padded([tokens for tokens, _ in trimmed], pad_token(binding.tokenizer, binding.model))
        return dataclasses.replace(
            prompts,
            ids=ids.to(prompts.ids.device),
            mask=mask.to(prompts.mask.device),
            texts=tuple(
                text.encode().removesuffix(removed).decode(errors="ignore")
                for text, (_, removed) in zip(prompts.texts, trimmed, strict=True)
            ),
            removed=tuple(removed for _, removed in trimmed),
        )

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        covers: Annotated[
            CoverKind, option("token sequences to sum over: those that the tokenizer writes, or every tokenization")
        ] = "canonical",
    ) -> ByteBoundary:
        """Return the processor for the prompts that `prepare` has trimmed; the model reads no prompt yet.

        Raises:
            ModelError: the model does not read forks of a text exactly; see `KVTree`.
        """
        prompts, vocabulary = binding.prompts, _vocabulary(binding)
        if any(prompts.removed):
            check_tree(binding.model, KVTree)
        removed = prompts.removed or (b"",) * len(prompts)
        trimmed = [
            TrimmedPrompt(
                tokens=tokens,
                context_tokens=text_behind_special_tokens(tokens, binding.tokenizer, vocabulary),
                removed=removed_bytes,
            )
            for tokens, removed_bytes in zip(binding.own_prompts(), removed, strict=True)
        ]
        processor = cls(prompts=prompts, trimmed=trimmed, covers=_covers(binding, covers), model=binding.model)
        binding.trace.readers["byte boundary"] = processor.path_reader
        return processor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return conditional log-probabilities for rows that still spell removed bytes, else the scores.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.

        Raises:
            ScoresError: the scores of a row forbid every token that spells the removed bytes.
        """
        position = input_ids.shape[1] - self._prompts.width
        if self._table is None:
            self._table = continuation_table(self._trimmed, self._covers, self.path_reader)
        if position > self._table.path.shape[1]:  # every row has spelled its removed bytes
            return scores
        table = self._table = self._table.to(scores.device)
        prompt = self._prompts.rows(input_ids)[:, None]  # [rows, 1]
        matches = (table.prompt == prompt) & (table.length == position)  # [rows, paths]
        matches &= (table.path[None, :, :position] == input_ids[:, None, self._prompts.width :]).all(-1)
        if not len(table.prompt) or not bool(matches.any()):
            return scores
        matched, path = matches.int().max(-1)
        matched = matched.bool()
        tokens = table.tokens[path]  # [rows, most]
        weighted = with_infinite_masks(scores).log_softmax(-1).gather(1, tokens) + table.rest[path]
        conditional = torch.full_like(scores, -torch.inf).scatter(1, tokens, weighted.to(scores.dtype))
        if bool((conditional.amax(-1)[matched] == -torch.inf).any()):
            raise ScoresError(
                "byte_boundary: every row must keep a token that spells the bytes cut from its prompt, got none; "
                "put byte_boundary before the steps that forbid tokens"
            )
        return torch.where(matched[:, None], conditional.log_softmax(-1), scores)


def _vocabulary(binding: Binding) -> Vocabulary:
    """Return the vocabulary of the generating model.

    Raises:
        ModelError: the tokenizer does not keep every byte of a text.
    """
    tables = _tables(binding)
    vocabulary = Vocabulary.of(binding.tokenizer, vocabulary_size(binding.model), tables=tables)
    tables.save()
    if vocabulary.loss_reason:
        raise ModelError(
            f"byte_boundary: tokenizer must keep every byte of a text, but {vocabulary.loss_reason}; "
            "leave byte_boundary out"
        )
    return vocabulary


def _covers(binding: Binding, kind: CoverKind) -> Covers:
    """Return the covers of the generating model's tokenizer."""
    return Covers.of(binding.tokenizer, _vocabulary(binding), kind, tables=_tables(binding))


def _tables(binding: Binding) -> TokenizerTables:
    """Return the tables of the generating model's tokenizer."""
    folder = None if binding.cache is None else binding.cache / FOLDER
    return TokenizerTables(binding.tokenizer, vocabulary_size(binding.model), folder)
