"""The parts of a fast tokenizer as data, and a cache of what is derived from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from logitkit.errors import ModelError

_CACHES: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def description(tokenizer: Any) -> dict[str, Any]:
    """Return the parts of a fast tokenizer as data, in the form of ``tokenizer.json``.

    Args:
        tokenizer: a fast tokenizer of transformers.

    Raises:
        ModelError: the tokenizer is a slow one.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise ModelError(
            f"{type(tokenizer).__name__}: must be a fast tokenizer (tokenizer.json); load it with AutoTokenizer"
        )
    data: dict[str, Any] = json.loads(inner.to_str())
    return data


def parts_of(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the steps of a normalizer, pretokenizer or decoder in order, with nested sequences flattened.

    Args:
        part: the part as data; None for a tokenizer without it.
    """
    if part is None:
        return []
    inner = next((part[name] for name in ("normalizers", "pretokenizers", "decoders") if name in part), None)
    return [part] if inner is None else [step for piece in inner for step in parts_of(piece)]


def tokenizer_cache(tokenizer: Any) -> dict[Any, Any]:
    """Return the dictionary of values derived from a tokenizer, which lives as long as the tokenizer.

    The values must not refer to the tokenizer, or neither would ever be freed.
    """
    return _CACHES.setdefault(tokenizer, {})


def without_prefix_space(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the same tokenizer, putting neither a space nor special tokens before a text.

    Args:
        data: the tokenizer's `description`.
    """
    normalizers = [step for step in parts_of(data["normalizer"]) if step["type"] != "Prepend"]
    pretokenizers = [dict(step) for step in parts_of(data["pre_tokenizer"])]
    for step in pretokenizers:
        step |= {"add_prefix_space": False} if "add_prefix_space" in step else {}
        step |= {"prepend_scheme": "never"} if step["type"] == "Metaspace" else {}
    return dict(data) | {
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pretokenizers} if pretokenizers else None,
        "post_processor": None,
    }
