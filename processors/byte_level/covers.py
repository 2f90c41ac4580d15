"""Covers of a text: the token sequences whose last token reaches its end, followed byte by byte.

A head is a sequence of tokens that ends inside the text and can still be carried to its end. Here heads move
on by the rule of what may follow what; their probabilities are `logitkit.processors.byte_level.tree`'s.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.engine.kv_tree import Node
from logitkit.processors.tokens.byte_trie import ByteTrie
from logitkit.processors.tokens.canonical_rules import canonical_rules_for
from logitkit.processors.tokens.reencoding import Context, Ids, Mask, Reencoding
from logitkit.processors.tokens.tokenizer_description import tokenizer_cache
from logitkit.processors.tokens.vocabulary import Vocabulary

TAIL = 12  # tokens at the end of a text in which its covers are looked for at first
CoverKind = Literal["canonical", "all"]


class SuccessorRule(Protocol):
    """CoverKind tokens may follow a context, what the context is then, and whether a text may end after it."""

    def allowed(self, context: Context, ids: Ids) -> Mask: ...  # noqa: D102
    def extend(self, context: Context, token: int) -> Context: ...  # noqa: D102
    def may_end(self, context: Context) -> bool: ...  # noqa: D102


class EveryToken:
    """Every token that spells something may follow any other (Vieira et al., arXiv:2412.03719)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._every = np.array([bool(spelled) for spelled in vocabulary.token_bytes])

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """All of them, of the shape of the ids."""
        mask: Mask = self._every[ids]
        return mask

    def extend(self, context: Context, token: int) -> Context:
        """Nothing needs to be remembered."""
        return ()

    def may_end(self, context: Context) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, eq=False, kw_only=True)
class Hypothesis:
    """A token sequence that ends inside the text.

    Attributes:
        context: what the rule needs to know of it.
        start: how many bytes of the text it spells.
        tokens: its last tokens, from where it was followed.
        node: its place in the tree of the model; None for one that was not read.
        logp: log-probability of the sequence in nats; an upper bound for one that was not read.
    """

    context: Context
    start: int
    tokens: tuple[int, ...] = ()
    node: Node | None = None
    logp: float = 0.0


class Covers:
    """How covers go on, byte by byte.

    Args:
        rule: what may follow what.
        trie: the tokens in the order of their bytes.
    """

    def __init__(self, rule: SuccessorRule, trie: ByteTrie) -> None:
        self.rule, self.trie = rule, trie
        self.canonical = rule if isinstance(rule, Reencoding) else None

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: Vocabulary, which: CoverKind = "canonical") -> Covers:
        """The covers under a tokenizer, kept for as long as it lives."""
        kept, key = tokenizer_cache(tokenizer), ("covers", which, id(vocabulary))
        if key not in kept:
            canonical = which == "canonical"
            rule: SuccessorRule = canonical_rules_for(tokenizer, vocabulary) if canonical else EveryToken(vocabulary)
            kept[key] = cls(rule, ByteTrie(vocabulary))
        return kept[key]  # type: ignore[no-any-return]

    def of_text(self, spelled: bytes) -> tuple[list[int], list[Hypothesis]]:
        """The tokens that all canonical covers of a text share, and the live heads, with their tokens behind those.

        Covers differ near the end of a text. They are looked for from a few tokens before it, and from further
        back until they agree on a token beyond that place. Nothing is shared where covers are not canonical.
        """
        tokens = self.canonical.encode(_text_before_error(spelled)) if self.canonical is not None else []
        tail = TAIL
        while True:
            shared = max(0, len(tokens) - tail)
            head = Hypothesis(context=self.context(tokens[:shared]), start=len(self.trie.join(tokens[:shared])))
            heads = self.live(head, spelled)
            common = shared_tokens([head.tokens for head in heads])
            if shared == 0 or common:
                trunk = tokens[:shared] + list(heads[0].tokens[:common] if heads else ())
                return trunk, [dataclasses.replace(head, tokens=head.tokens[common:]) for head in heads]
            tail *= 2

    def context(self, tokens: Sequence[int]) -> Context:
        """What the rule needs to know of some tokens."""
        context: Context = ()
        for token in tokens[-TAIL:]:
            context = self.rule.extend(context, token)
        return context

    def beyond(self, head: Hypothesis, text: bytes) -> Ids:
        """The tokens that carry a head beyond the end of the text."""
        pending = text[head.start :]
        low, high = self.trie.range(pending)
        ids = self.trie.ids[low + len(self.trie.exact(pending)) : high]
        return ids[self.rule.allowed(head.context, ids)] if len(ids) else ids

    def step(
        self, heads: Iterable[Hypothesis], text: bytes, *, lenient: bool = True
    ) -> tuple[list[Hypothesis], list[Hypothesis]]:
        """Move heads to the end of a text that is one byte longer than before.

        Returns:
            Those that still reach beyond it, and new ones that end with it, whose ``logp`` have grown by their
            last token where the node of the head knows it. Where the rule leaves no head at all, as in bytes
            that are no UTF-8, any token may follow once, if ``lenient``.
        """
        heads = list(heads)
        kept: list[Hypothesis] = []
        ends: list[Hypothesis] = []
        for any_token in (False, True) if lenient else (False,):
            kept, ends = [], []
            for head in heads:
                pending = text[head.start :]
                low, high = self.trie.range(pending)
                if low == high:
                    continue
                exact = self.trie.exact(pending)
                if not any_token:
                    exact = exact[self.rule.allowed(head.context, exact)]
                if (any_token and high > low + len(exact)) or (not any_token and len(self.beyond(head, text))):
                    kept.append(head)
                ends += [self._ended(head, int(token), len(text), lenient=any_token) for token in exact]
            if kept or ends:
                break
        return kept, ends

    def _ended(self, head: Hypothesis, token: int, end: int, *, lenient: bool) -> Hypothesis:
        """A head and its last token."""
        logp = head.node.logp[token] if head.node is not None and head.node.logp is not None else 0.0
        context = () if lenient else self.rule.extend(head.context, token)
        return dataclasses.replace(
            head, context=context, start=end, tokens=(*head.tokens, token), logp=head.logp + float(logp)
        )

    def within(self, head: Hypothesis, text: bytes) -> list[Hypothesis]:
        """The head continued by each token that ends inside the text or with it."""
        found = []
        for end in range(head.start + 1, min(len(text), head.start + self.trie.longest) + 1):
            tokens = self.trie.exact(text[head.start : end])
            found += [
                self._ended(head, int(token), end, lenient=False)
                for token in tokens[self.rule.allowed(head.context, tokens)]
            ]
        return found

    def live(self, start: Hypothesis, text: bytes) -> list[Hypothesis]:
        """All heads of a text that begin like a given one."""
        heads = [start]
        for end in range(start.start + 1, len(text) + 1):
            kept, ends = self.step(heads, text[:end])
            heads = kept + ends
        return heads

    def carried(self, head: Hypothesis, text: bytes) -> float:
        """Log of the mass in nats with which a head covers a text: it ends with it, or a token goes beyond."""
        if head.start == len(text):
            return head.logp
        if head.node is None or head.node.logp is None:
            return -math.inf
        return head.logp + logsumexp(head.node.logp[self.beyond(head, text)])


def _text_before_error(spelled: bytes) -> str:
    """The bytes as text, up to the first that cannot be."""
    try:
        return spelled.decode()
    except UnicodeDecodeError as error:
        return spelled[: error.start].decode()


def shared_tokens(rows: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens all rows share."""
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def logsumexp(values: Sequence[float] | NDArray[np.floating]) -> float:
    """Log of the sum of exponentials, in float64; -inf of nothing."""
    values = np.asarray(values, dtype=np.float64)
    best = values.max(initial=-np.inf)
    return float(best + np.log(np.exp(values - best).sum())) if best > -np.inf else -math.inf
