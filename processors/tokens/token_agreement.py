"""Which token ids mean the same for two models: the one place where logitkit decides whether two models can be paired.

Two models are *compatible* if no id stands for other text in the two. They may pad their vocabularies to different
widths, and one tokenizer may have tokens that the other lacks, as after fine-tuning with an added token. An id that
only one of the two models can write, or that names different added tokens, is not *shared*: it is impossible wherever
the models decide together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.token_bytes import style_of
from logitkit.processors.tokens.tokenizer_description import description, tokenizer_cache
from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenAgreement:
    """How the token ids of two models agree.

    Attributes:
        shared: whether both models can write the id, and it is the same token for both, or padding for both; bool,
            ``[width]`` of the wider model.
        conflict: the first id that stands for other text in the two models; None: the models are compatible.
        lacking: tokens of the first model that the second lacks, by id.
        same_text: whether the models are compatible and their tokenizers differ in added tokens alone, so that both
            write a text with the same ids.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> from logitkit.registry.laws.tiny_models import wide_model
    >>> agreement = TokenAgreement.of((tiny_model(), tiny_tokenizer()), (wide_model(280), tiny_tokenizer()))
    >>> agreement.conflict, agreement.lacking, agreement.shared.shape, int(agreement.shared.sum())
    (None, {}, torch.Size([280]), 272)
    """

    shared: Tensor
    conflict: int | None
    lacking: Mapping[int, str]
    same_text: bool

    @classmethod
    def of(cls, first: tuple[Any, Any], second: tuple[Any, Any]) -> TokenAgreement:
        """Compare two models, each given as ``(model, tokenizer)``.

        A tokenizer of None stands for that of the other model: the caller knows that the models have one tokenizer.

        Args:
            first, second: a model or its configuration, and its tokenizer, fast or slow.
        """
        widths = vocabulary_size(first[0]), vocabulary_size(second[0])
        own, other = (tokenizer for _, tokenizer in (first, second))
        if own is None or other is None or own is other or fingerprint(own) == fingerprint(other):
            shared = torch.arange(max(widths)) < min(widths)
            lacking = _written(own if other is None else other, range(min(widths), widths[0]))
            return cls(shared=shared, conflict=None, lacking=lacking, same_text=True)
        cache, key = tokenizer_cache(own), ("agreement", len(own), fingerprint(other), widths)
        if key not in cache:
            cache[key] = cls._compared((own, other), widths)
        return cache[key]  # type: ignore[no-any-return]

    @classmethod
    def _compared(cls, tokenizers: tuple[Any, Any], widths: tuple[int, int]) -> TokenAgreement:
        """Compare two tokenizers id by id; ``widths`` are those of their models."""
        own, other = (_tokens(tokenizer) for tokenizer in tokenizers)
        shared = torch.arange(max(widths)) < min(widths)
        conflict = None
        for token, same in _differences(own, other, tokenizers, widths):
            if same is None and conflict is None:
                conflict = token
            shared[token] = bool(same)
        known = {token: text for token, text in own.items() if token < widths[0]}
        lacking = {token: text for token, text in sorted(known.items()) if not shared[token]}
        learned = [set(tokens) - set(_added(each)) for tokens, each in zip((own, other), tokenizers, strict=True)]
        same_text = conflict is None and learned[0] == learned[1]
        return cls(shared=shared, conflict=conflict, lacking=lacking, same_text=same_text)

    @property
    def complete(self) -> bool:
        """Whether every id is shared, so that nothing becomes impossible."""
        return bool(self.shared.all())

    def check(self, owner: str, name: str, *, way_out: str) -> TokenAgreement:
        """Return the agreement itself if the models are compatible.

        Args:
            owner: the method that pairs the models, for the error.
            name: name of the second model, for the error.
            way_out: what the caller can do instead, for the error.

        Raises:
            ModelError: an id stands for other text in the two models.
        """
        if self.conflict is not None:
            raise ModelError(
                f"{owner}: model {name!r} must have the tokenizer of the generating model, "
                f"got another token with id {self.conflict}; {way_out}"
            )
        return self


def stated_tokenizer(model: Any) -> Any | None:
    """Return the tokenizer in the folder or under the hub id that a model states; None where there is none.

    Args:
        model: a model of transformers.

    >>> from logitkit.registry.laws import tiny_model
    >>> stated_tokenizer(tiny_model()) is None  # a model in memory states no folder
    True
    """
    origin = getattr(model, "name_or_path", "")
    if not origin:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(origin)
    except (OSError, ValueError):
        return None


def _tokens(tokenizer: Any) -> dict[int, str]:
    """Return the text of each token by id, as the tokenizer writes it; an added token replaces another of its id."""
    tokens = {token: text for text, token in tokenizer.get_vocab().items()}
    return tokens | _added(tokenizer)


def _added(tokenizer: Any) -> dict[int, str]:
    """Return the text of each added token by id, special tokens included."""
    return {token: str(added) for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items()}


def _written(tokenizer: Any | None, ids: range) -> dict[int, str]:
    """Return the tokens of these ids that the tokenizer has; none without a tokenizer."""
    tokens = {} if tokenizer is None or not ids else _tokens(tokenizer)
    return {token: tokens[token] for token in ids if token in tokens}


def _differences(
    own: Mapping[int, str], other: Mapping[int, str], tokenizers: Sequence[Any], widths: Sequence[int]
) -> list[tuple[int, bool | None]]:
    """Compare the tokens of two tokenizers by id.

    Returns:
        The ids below both widths whose tokens are written differently, each with True: the same bytes; False: not
        shared, since one tokenizer lacks the id or both added a token; None: other text.
    """
    spellings: list[Sequence[bytes | None]] | None = None
    styles = {_style(tokenizer) for tokenizer in tokenizers} - {None}
    added = [_added(tokenizer) for tokenizer in tokenizers]
    found: list[tuple[int, bool | None]] = []
    for token in sorted((own.keys() | other.keys()) & set(range(min(widths)))):
        first, second = own.get(token), other.get(token)
        if first == second and (len(styles) < 2 or any(token in each for each in added)):
            continue
        if first is None or second is None or all(token in each for each in added):
            found.append((token, False))
            continue
        spellings = spellings or [_spelled(tokenizer, min(widths)) for tokenizer in tokenizers]
        spelled = [each[token] for each in spellings]
        found.append((token, True if spelled[0] and spelled[0] == spelled[1] else None))
    return found


def _style(tokenizer: Any) -> str | None:
    """Return how a tokenizer writes bytes; None for a slow one, which does not say it."""
    return None if getattr(tokenizer, "backend_tokenizer", None) is None else style_of(description(tokenizer))


def _spelled(tokenizer: Any, width: int) -> Sequence[bytes | None]:
    """Return the bytes of each token; a slow tokenizer does not state them."""
    fast = getattr(tokenizer, "backend_tokenizer", None) is not None
    return Vocabulary.of(tokenizer, width, truncate=True).token_bytes if fast else [None] * width
