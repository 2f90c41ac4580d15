"""Canonical decoding: continuations are written in the tokens that the tokenizer itself would write.

`Canonical` is the logits processor, and `canonical_prefix` the part of a token sequence by which the next token is
judged.
"""

from __future__ import annotations

from logitkit.processors.canonical.canonical import Canonical, canonical_prefix

__all__ = ["Canonical", "canonical_prefix"]
