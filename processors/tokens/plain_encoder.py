"""An encoder of plain text: a tokenizer that treats special tokens as text and puts nothing before a text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from logitkit.processors.tokens.tokenizer_description import without_prefix_space
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables

FLAGS = ("content", "special", "single_word", "lstrip", "rstrip", "normalized")
_NO_MODEL = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}


def plain_encoder(tables: TokenizerTables) -> Tokenizer:
    """Return a tokenizer that encodes special tokens as text and puts no space before a text.

    It shares the model of the original tokenizer, since copying the model of a large vocabulary takes seconds. All
    else is its own, so truncation, padding and tokens that are added later do not change it. Special tokens stay in
    the vocabulary, because their removal would shift the ids of added tokens.

    Args:
        tables: the tables of a tokenizer.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> plain_encoder(TokenizerTables(tiny_tokenizer(), 259)).encode("</s>").tokens
    ['<', '/', 's', '>']
    """
    settings = without_prefix_space(tables.settings) | {"padding": None, "truncation": None}
    encoder = _sharing_model(tables.backend, settings)
    if encoder is None:
        encoder = Tokenizer.from_str(json.dumps(settings | {"model": tables.whole["model"]}))
    encoder.encode_special_tokens = True
    return encoder


def _sharing_model(backend: Tokenizer, settings: Mapping[str, Any]) -> Tokenizer | None:
    """Return a tokenizer with the model of another one; None where its added tokens get other ids or flags."""
    parts = Tokenizer.from_str(
        json.dumps(_NO_MODEL | {name: settings[name] for name in ("normalizer", "pre_tokenizer")})
    )
    encoder = Tokenizer(backend.model)
    if parts.normalizer is not None:
        encoder.normalizer = parts.normalizer
    if parts.pre_tokenizer is not None:
        encoder.pre_tokenizer = parts.pre_tokenizer
    tokens: Sequence[Mapping[str, Any]] = sorted(settings["added_tokens"], key=lambda token: token["id"])
    for special, group in itertools.groupby(tokens, key=lambda token: bool(token["special"])):
        added = [AddedToken(**{name: token[name] for name in FLAGS}) for token in group]
        (encoder.add_special_tokens if special else encoder.add_tokens)(added)
    got = {
        number: [getattr(token, name) for name in FLAGS] for number, token in encoder.get_added_tokens_decoder().items()
    }
    return encoder if got == {token["id"]: [token[name] for name in FLAGS] for token in tokens} else None
