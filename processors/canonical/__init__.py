"""Canonical decoding: continuations are written in the tokens that the tokenizer itself would write.

`Canonical` is the logits processor, `canonical_prefix` the part of a token sequence by which the next token is judged,
and `non_canonical_tokens` says which tokens of a continuation the tokenizer would not have written.
"""

from __future__ import annotations

from logitkit.processors.canonical.canonical import Canonical
from logitkit.processors.canonical.prefix import canonical_prefix, non_canonical_tokens

__all__ = ["Canonical", "canonical_prefix", "non_canonical_tokens"]
