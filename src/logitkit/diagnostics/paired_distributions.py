"""The distributions of two models before each token of a text, or before each of its bytes.

A text that is longer than the context of a model is read in windows, each of which begins in the middle of the one
before. Every token is taken from the first window in which it stands, so that all but the first tokens of a text have
at least half a window before them.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.byte_level import ByteTree
from logitkit.processors.engine.shared_vocabulary import check_prompts, with_shared_ids
from logitkit.processors.model_facts import context_length, end_tokens, vocabulary_size
from logitkit.processors.tokens import TokenAgreement

POSITIONS = 32  # places whose distributions over tokens are held in double precision at the same time
PREFIXES = 64  # texts whose next-byte distributions are read together
LEAST_WINDOW = 4


class Window(NamedTuple):
    """Part of a text that is read at once.

    Attributes:
        begin, end: its first place and the place after its last one; ``end`` is the last place that it predicts.
        counted: the first place that it predicts and no window before has predicted.

    Example:
        >>> Window(0, 8, 1).end
        8
    """

    begin: int
    end: int
    counted: int


class PairedDistributions(NamedTuple):
    """Logits of two models before some successive places of a text.

    Attributes:
        first: the first of these places.
        model, other: logits or log-probabilities, ``[places, vocab]``.
        leaks: mean probability of each model on other tokenizations and on what the other model excludes; 0 of tokens.

    Example:
        >>> PairedDistributions(1, torch.zeros(1, 3), torch.zeros(1, 3), (0.0, 0.0)).first
        1
    """

    first: int
    model: Tensor
    other: Tensor
    leaks: tuple[float, float]


def windows(first: int, length: int, size: int) -> list[Window]:
    """Return the windows of a text.

    Args:
        first: the first place to predict.
        length: number of places of the text.
        size: largest number of places that a window reads.

    Example:
        >>> windows(1, 10, 6)
        [Window(begin=0, end=6, counted=1), Window(begin=3, end=9, counted=7)]
    """
    found, begin, counted = [], 0, first
    while counted < length:
        end = min(begin + size, length - 1)
        if counted <= end:
            found.append(Window(begin, end, counted))
            counted = end + 1
        begin += max(1, size // 2)
    return found


class TokenReader:
    """Reads the distributions of two models of one tokenizer.

    Args:
        pair: the models.
        agreement: how their ids agree.
        special: ids of special tokens; those at the begin of a text begin every window of it.
        window: largest number of tokens that is read at once; never more than the context of a model.

    Raises:
        ModelError: a model with an encoder.
    """

    def __init__(
        self, pair: tuple[Any, Any], agreement: TokenAgreement, *, special: Collection[int], window: int
    ) -> None:
        for model in pair:
            refuse_encoder(model)
        self.pair, self.agreement, self.special = pair, agreement, set(special)
        self.width = min(vocabulary_size(model) for model in pair)
        self.window = min([window, *(limit for model in pair if (limit := context_length(model)))])

    def windows(self, ids: Sequence[int], first: int) -> list[Window]:
        """Return the windows of a text behind its leading special tokens, whose number is added to no place."""
        lead = self._lead(ids)
        return windows(max(first - lead, 0 if lead else 1), len(ids) - lead, max(LEAST_WINDOW, self.window - lead))

    @torch.no_grad()
    def read(self, ids: Sequence[int], first: int) -> Iterator[PairedDistributions]:
        """Yield the distributions before the tokens from the place ``first`` on, which is not the first of the text.

        Raises:
            PromptError: the other model lacks a token of the text.
        """
        check_prompts([ids], self.agreement, "compare: the other model")
        lead = self._lead(ids)
        for begin, end, counted in self.windows(ids, first):
            row, kept = [*ids[:lead], *ids[lead + begin : lead + end]], end + 1 - counted
            logits = [self._logits(model, row, kept) for model in self.pair]
            for place in range(0, kept, POSITIONS):
                model, other = (rows[place : place + POSITIONS] for rows in logits)
                yield PairedDistributions(lead + counted + place, model, other.to(model.device), (0.0, 0.0))

    def _lead(self, ids: Sequence[int]) -> int:
        """Return the number of special tokens at the begin of a text; its last token is not one of them."""
        return next((place for place, token in enumerate(ids[:-1]) if token not in self.special), len(ids) - 1)

    def _logits(self, model: Any, row: Sequence[int], kept: int) -> Tensor:
        """Return the logits after the last ``kept`` tokens of a row, ``[kept, vocab]``."""
        known = inspect.signature(model.forward).parameters
        layout: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
        if "logits_to_keep" in known:
            layout["logits_to_keep"] = kept
        logits = model(input_ids=torch.tensor([row], device=model.device), **layout).logits[0, -kept:, : self.width]
        shared = self.agreement.shared[: self.width].to(logits.device)
        return logits if bool(shared.all()) else with_shared_ids(logits, shared)


class ByteReader:
    """Reads the next-byte distributions of two models of any tokenizers, as `ByteTree` computes them.

    Args:
        pair: the models, each with its tokenizer.
        window: largest number of bytes that is read at once; never more than a context holds, a token for each byte.

    Attributes:
        begins: for each model the token that precedes every text: the begin token of its tokenizer, or the first of
            its end tokens.

    Raises:
        ModelError: a model with an encoder, or a tokenizer that loses bytes.
    """

    def __init__(self, pair: Sequence[tuple[Any, Any]], *, window: int) -> None:
        for model, _ in pair:
            refuse_encoder(model)
        self.begins = [_begin(model, tokenizer) for model, tokenizer in pair]
        self.trees = [
            ByteTree(model, tokenizer, bos=begin) for (model, tokenizer), begin in zip(pair, self.begins, strict=True)
        ]
        limits = [limit - 1 for model, _ in pair if (limit := context_length(model))]  # a begin token
        self.window = max(LEAST_WINDOW, min([window, *limits]) - 1)

    def windows(self, ids: Sequence[int], first: int) -> list[Window]:
        """Return the windows of a text; each begins with a whole character of UTF-8."""
        return [_at_character(ids, window) for window in windows(first, len(ids), min(self.window, len(ids)))]

    @torch.no_grad()
    def read(self, ids: Sequence[int], first: int) -> Iterator[PairedDistributions]:
        """Yield the distributions before the bytes from the place ``first`` on."""
        for begin, end, counted in self.windows(ids, first):
            for place in range(counted, end + 1, PREFIXES):
                prefixes = [bytes(ids[begin:stop]) for stop in range(place, min(end + 1, place + PREFIXES))]
                model, other = (
                    torch.stack([each.logp for each in tree.distributions(prefixes)]) for tree in self.trees
                )
                shared = shared_bytes(model, other, torch.tensor(ids[place : place + len(prefixes)]))
                model, other = (logp.masked_fill(~shared, -torch.inf) for logp in (model, other))
                leaks = [float((1 - logp.exp().sum(-1)).mean()) for logp in (model, other)]
                yield PairedDistributions(place, model, other, (max(0.0, leaks[0]), max(0.0, leaks[1])))


Reader = TokenReader | ByteReader


def refuse_encoder(model: Any) -> None:
    """Refuse a model with an encoder.

    Raises:
        ModelError: see above.
    """
    if model.config.is_encoder_decoder:
        raise ModelError("compare: model must be decoder-only, got one with an encoder; choose a causal model")


def shared_bytes(model: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Return which bytes are compared: those that both models find possible, bool ``[places, 257]``.

    Bytes that no text in UTF-8 has are possible in some models and not in others. Where a model excludes the byte of
    the text itself, every byte is compared.

    Args:
        model, other: log-probabilities, ``[places, 257]``.
        targets: the bytes of the text, ``[places]``.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> shared_bytes(p, q, torch.tensor([0])), shared_bytes(p, q, torch.tensor([2]))
        (tensor([[ True,  True, False]]), tensor([[True, True, True]]))
    """
    possible = (model > -torch.inf) & (other > -torch.inf)
    return possible | ~possible.gather(-1, targets[:, None])


def _begin(model: Any, tokenizer: Any) -> int | None:
    """Return the token before every text; None where the tokenizer has no begin token and the model no end token."""
    if tokenizer.bos_token_id is not None:
        return int(tokenizer.bos_token_id)
    return min(end_tokens(model, tokenizer), default=None)


def _at_character(ids: Sequence[int], window: Window) -> Window:
    """Return a window that begins at the first byte of a character."""
    begin = window.begin
    while begin < window.counted and 0x80 <= ids[begin] < 0xC0:
        begin += 1
    return window._replace(begin=begin)
