"""Covers of a text, followed byte by byte.

A cover of a text is a token sequence whose bytes begin with the text and whose last token reaches the end of the
text. A hypothesis is a token sequence that ends inside the text, or with the text, and that one more token can turn
into a cover. This module moves hypotheses along a text by a successor rule. `logitkit.processors.byte_level.tree`
gives them probabilities.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from logitkit.processors.byte_level.hypotheses import Advanced, Hypothesis, SharedBeginning
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.successor_rule import EveryToken, SuccessorRule
from logitkit.processors.tokens.byte_trie import ByteTrie
from logitkit.processors.tokens.canonical_rules import CanonicalRules
from logitkit.processors.tokens.reencoding import Context, Ids
from logitkit.processors.tokens.rule_choice import canonical_rules_for
from logitkit.processors.tokens.tokenizer_description import tokenizer_cache
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

FIRST_TRIED = 4  # tokens tried first where one allowed token is looked for
TAIL = 12  # last tokens of a text in which covers are first searched; also the tokens that determine a context
# Prose, code and numbers: the places of words behind such text are found once and kept in the tokenizer's tables.
SAMPLE = (
    b" The quick brown fox, who had 12 hens, didn't jump over \"lazy\" dogs. It's 3.14 (or so)!\n\n"
    b"def f(x: int) -> str:\n    return f'{x}'  # see [1]\nA new line - and 2,000 more: yes? http://a.b/c\n"
)
CoverKind = Literal["canonical", "all"]


class Covers:
    """The covers of texts under one successor rule.

    Args:
        rule: which tokens may follow a token sequence.
        trie: the tokens in the order of their bytes.
        encode: text to the tokens that the tokenizer writes; None: covers need not be canonical.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> covers = Covers.of(tiny_tokenizer(), Vocabulary.of(tiny_tokenizer()))
    >>> shared, hypotheses = covers.of_text(b"ab")  # a tokenizer of single bytes: one cover
    >>> covers.trie.join(shared), [hypothesis.start for hypothesis in hypotheses]
    (b'ab', [2])
    """

    def __init__(
        self, rule: SuccessorRule, trie: ByteTrie, *, encode: Callable[[str], list[int]] | None = None
    ) -> None:
        self.rule, self.trie, self.encode = rule, trie, encode

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        vocabulary: Vocabulary,
        kind: CoverKind = "canonical",
        *,
        tables: TokenizerTables | None = None,
    ) -> Covers:
        """Return the covers under a tokenizer; they are computed once for each tokenizer object.

        Args:
            tokenizer: a fast tokenizer of transformers.
            vocabulary: its tokens as bytes.
            kind: ``canonical`` for sequences that begin an encoding, ``all`` for every tokenization.
            tables: the tokenizer's tables, which are then saved; None: everything is computed.
        """
        cache, key = tokenizer_cache(tokenizer), ("covers", kind, id(vocabulary))
        if key not in cache:
            tables = tables or TokenizerTables(tokenizer, len(vocabulary))
            trie = ByteTrie(vocabulary, tables)
            if kind == "canonical":
                rule = canonical_rules_for(tokenizer, vocabulary, tables)
                covers = cache[key] = cls(rule, trie, encode=rule.encode)
                if isinstance(rule, CanonicalRules) and tables.is_kept:
                    rule.positions.keep(tables, lambda: covers.live(Hypothesis(context=(), start=0), SAMPLE))
            else:
                cache[key] = cls(EveryToken(vocabulary), trie)
            tables.save()
        return cache[key]  # type: ignore[no-any-return]

    def of_text(self, text: bytes) -> SharedBeginning:
        """Return the tokens that all canonical covers of a text share, and the live hypotheses that continue them.

        Covers differ near the end of a text. The search starts `TAIL` tokens before the end, and twice as far back
        each time until all hypotheses share a token after the start of the search. Covers of kind ``all`` share
        no tokens.

        Args:
            text: bytes, with the space that the tokenizer puts before every text.
        """
        tokens = self._own_beginning(text)
        tail = TAIL
        while True:
            first = max(0, len(tokens) - tail)
            begin = Hypothesis(context=self.context(tokens[:first]), start=len(self.trie.join(tokens[:first])))
            hypotheses = self.live(begin, text)
            common = shared_length([hypothesis.tokens for hypothesis in hypotheses])
            if first == 0 or common:
                shared = tokens[:first] + list(hypotheses[0].tokens[:common] if hypotheses else ())
                return SharedBeginning(
                    shared,
                    [dataclasses.replace(hypothesis, tokens=hypothesis.tokens[common:]) for hypothesis in hypotheses],
                )
            tail *= 2

    def _own_beginning(self, text: bytes) -> list[int]:
        """Return the tokenizer's tokens of a text up to bytes that are not UTF-8 or that the tokenizer changes."""
        tokens = self.encode(_decodable_beginning(text)) if self.encode is not None else []
        spelled = 0
        for place, token in enumerate(tokens):
            piece = self.trie.join([token])
            if not piece or not text.startswith(piece, spelled):
                return tokens[:place]
            spelled += len(piece)
        return tokens

    def context(self, tokens: Sequence[int]) -> Context:
        """Return the context of a token sequence; only its last `TAIL` tokens are read."""
        context: Context = ()
        for token in tokens[-TAIL:]:
            context = self.rule.extend(context, token)
        return context

    def tokens_beyond(self, hypothesis: Hypothesis, text: bytes) -> Ids:
        """Return the allowed tokens that carry a hypothesis beyond the end of the text."""
        ids = self._ids_beyond(hypothesis, text)
        return ids[self.rule.allowed(hypothesis.context, ids)] if len(ids) else ids

    def _ids_beyond(self, hypothesis: Hypothesis, text: bytes) -> Ids:
        """Return the tokens whose bytes carry a hypothesis beyond the end of the text, allowed or not."""
        pending = text[hypothesis.start :]
        low, high = self.trie.range(pending)
        return self.trie.ids[low + len(self.trie.exact(pending)) : high]

    def _reaches_beyond(self, hypothesis: Hypothesis, text: bytes) -> bool:
        """Return whether `tokens_beyond` has a token; mostly the first tokens show it."""
        ids, first, count = self._ids_beyond(hypothesis, text), 0, FIRST_TRIED
        while first < len(ids):
            if self.rule.allowed(hypothesis.context, ids[first : first + count]).any():
                return True
            first, count = first + count, 8 * count
        return False

    def advance(self, hypotheses: Iterable[Hypothesis], text: bytes, *, lenient: bool = True) -> Advanced:
        """Move hypotheses to the end of a text that has grown by one byte.

        Args:
            hypotheses: the hypotheses of the text without its last byte.
            text: the text with its last byte.
            lenient: where the rule leaves no hypothesis, as in bytes that are not UTF-8, allow any token once.

        Returns:
            Continued and completed hypotheses. ``logp`` of a completed one includes its last token where the
            hypothesis that it extends was read by the model.
        """
        hypotheses = list(hypotheses)
        advanced = self._advance(hypotheses, text, any_token=False)
        if lenient and not advanced.continued and not advanced.completed:
            return self._advance(hypotheses, text, any_token=True)
        return advanced

    def _advance(self, hypotheses: Sequence[Hypothesis], text: bytes, *, any_token: bool) -> Advanced:
        """Move hypotheses to the end of a text; with ``any_token`` the rule is not applied."""
        continued: list[Hypothesis] = []
        completed: list[Hypothesis] = []
        for hypothesis in hypotheses:
            pending = text[hypothesis.start :]
            low, high = self.trie.range(pending)
            if low == high:
                continue
            exact = self.trie.exact(pending)
            if any_token:
                reaches_beyond = high > low + len(exact)
            else:
                exact = exact[self.rule.allowed(hypothesis.context, exact)]
                reaches_beyond = self._reaches_beyond(hypothesis, text)
            continued += [hypothesis] if reaches_beyond else []
            completed += [self._completed(hypothesis, int(token), len(text), any_token=any_token) for token in exact]
        return Advanced(continued, completed)

    def _completed(self, hypothesis: Hypothesis, token: int, end: int, *, any_token: bool) -> Hypothesis:
        """Return a hypothesis extended by a token that ends at byte ``end``."""
        node = hypothesis.node
        logp = node.logp[token] if node is not None and node.logp is not None else 0.0
        context = () if any_token else self.rule.extend(hypothesis.context, token)
        return dataclasses.replace(
            hypothesis,
            context=context,
            start=end,
            tokens=(*hypothesis.tokens, token),
            logp=hypothesis.logp + float(logp),
            allowed=hypothesis.allowed and not any_token,
        )

    def extensions_within(self, hypothesis: Hypothesis, text: bytes) -> list[Hypothesis]:
        """Return the hypothesis extended by each allowed token that ends inside the text or with it."""
        extensions = []
        for end in range(hypothesis.start + 1, min(len(text), hypothesis.start + self.trie.longest) + 1):
            tokens = self.trie.exact(text[hypothesis.start : end])
            extensions += [
                self._completed(hypothesis, int(token), end, any_token=False)
                for token in tokens[self.rule.allowed(hypothesis.context, tokens)]
            ]
        return extensions

    def live(self, begin: Hypothesis, text: bytes, *, lenient: bool = True) -> list[Hypothesis]:
        """Return all hypotheses of a text that extend a hypothesis, or are that hypothesis; see `advance`."""
        hypotheses = [begin]
        for end in range(begin.start + 1, len(text) + 1):
            continued, completed = self.advance(hypotheses, text[:end], lenient=lenient)
            hypotheses = continued + completed
        return hypotheses

    def placing_context(self, tokens: Sequence[int], text: bytes) -> Context | None:
        """Return the context behind tokens from which allowed tokens spell a text; None where no tokens do.

        Tokens that the tokenizer never writes in this order, such as the tokens of pieces that were encoded apart,
        can forbid every next token. The context is then that of the longest last tokens that the rule allows.

        Args:
            tokens: the tokens before the text.
            text: the bytes to spell.
        """
        context = self.context(tokens)
        if self._spells(context, text):
            return context
        for first in range(max(0, len(tokens) - TAIL), len(tokens)):
            if (shorter := self._allowed_context(tokens[first:])) is not None:
                return shorter if self._spells(shorter, text) else None
        return None

    def _spells(self, context: Context, text: bytes) -> bool:
        """Return whether allowed tokens behind a context spell a text."""
        return bool(self.live(Hypothesis(context=context, start=0), text, lenient=False))

    def _allowed_context(self, tokens: Sequence[int]) -> Context | None:
        """Return the context of a token sequence that the rule allows as a whole; None for any other sequence."""
        context: Context = ()
        for token in tokens:
            if not self.rule.allowed(context, np.array([token]))[0]:
                return None
            context = self.rule.extend(context, token)
        return context

    def log_mass(self, hypothesis: Hypothesis, text: bytes) -> float:
        """Return the log of the probability of all covers of a text that extend a hypothesis by one token, in nats.

        A hypothesis that ends with the text is a cover itself and counts with its own probability.
        """
        if hypothesis.start == len(text):
            return hypothesis.logp
        if hypothesis.node is None or hypothesis.node.logp is None:
            return -math.inf
        return hypothesis.logp + logsumexp(hypothesis.node.logp[self.tokens_beyond(hypothesis, text)])


def _decodable_beginning(text: bytes) -> str:
    """Decode the bytes up to the first byte that is not UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start].decode()


def shared_length(rows: Sequence[tuple[int, ...]]) -> int:
    """Return how many leading tokens all rows share.

    >>> shared_length([(1, 2, 3), (1, 2), (1, 2, 4)])
    2
    """
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
