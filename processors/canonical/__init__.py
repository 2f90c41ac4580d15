"""The tokens of a text: canonical decoding, and prompts in other tokens than the tokenizer writes.

Canonical decoding: `Canonical` is the logits processor, `canonical_prefix` the part of a token sequence by which the
next token is judged, and `non_canonical_tokens` says which tokens of a continuation the tokenizer would not have
written.
Re-splits: `Retokenize` is the logits processor, `averaged` its formula, and `TokenSplits` draws the splits.
"""

from __future__ import annotations

from logitkit.processors.canonical.canonical import Canonical
from logitkit.processors.canonical.prefix import canonical_prefix, non_canonical_tokens
from logitkit.processors.canonical.retokenizing import Retokenize, averaged
from logitkit.processors.canonical.splits import TokenSplits

__all__ = [
    "Canonical",
    "Retokenize",
    "TokenSplits",
    "averaged",
    "canonical_prefix",
    "non_canonical_tokens",
]
