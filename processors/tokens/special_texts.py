"""Special tokens that a tokenizer's model itself produces from a text, such as InternLM2's ``<s>`` from its merges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from logitkit.processors.tokens.tokenizer_description import without_prefix_space


def produced_special_tokens(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the special tokens that the model of a tokenizer writes for their text, even where it is plain text.

    Special tokens have no bytes, so the bytes of such a text are lost.

    Args:
        data: the tokenizer's description.
    """
    model = data["model"]
    special = {token["content"]: token["id"] for token in data["added_tokens"] if token["special"]}
    if model["type"] == "BPE":
        merges = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        candidates = special.keys() & {left + right for left, right in merges}
    elif model["type"] == "Unigram":
        candidates = special.keys() & {piece for piece, _ in model["vocab"]}
    else:
        candidates = set()
    if not candidates:
        return ()
    tokenizer = Tokenizer.from_str(json.dumps(without_prefix_space(data) | {"padding": None, "truncation": None}))
    tokenizer.encode_special_tokens = True
    return tuple(
        text
        for text in sorted(candidates)
        if any(special[text] in tokenizer.encode(more, add_special_tokens=False).ids for more in (text, "a" + text))
    )
