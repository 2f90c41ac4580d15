"""Hypotheses: token sequences inside a text that one more token can turn into a cover of the text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from logitkit.processors.engine.tree_node import Node
from logitkit.processors.tokens.reencoding import Context


@dataclass(frozen=True, eq=False, kw_only=True)
class Hypothesis:
    """A token sequence that ends inside a text, or with it, and that one more token can turn into a cover.

    The bytes of the text after ``start`` are its pending bytes: the next token must begin with them.

    Attributes:
        context: what the successor rule needs to know about the sequence.
        start: number of bytes of the text that the sequence spells.
        tokens: the last tokens of the sequence, counted from the place where the search for it began.
        node: the end of the sequence in the KV tree; None where the model has not read the sequence.
        logp: log-probability of the sequence in nats; for a sequence that was not read, an upper bound.
        allowed: whether the successor rule allowed every token of the search.
    """

    context: Context
    start: int
    tokens: tuple[int, ...] = ()
    node: Node | None = None
    logp: float = 0.0
    allowed: bool = True

    def read_at(self, node: Node) -> Hypothesis:
        """Return the hypothesis after the model has read it up to a node."""
        return dataclasses.replace(self, tokens=(), node=node, logp=node.total)


class SharedBeginning(NamedTuple):
    """The tokens that all covers of a text share, and the hypotheses that continue these tokens.

    Attributes:
        tokens: shared tokens.
        hypotheses: live hypotheses of the text; their ``tokens`` follow the shared ones.
    """

    tokens: list[int]
    hypotheses: list[Hypothesis]


class Advanced(NamedTuple):
    """Hypotheses after a text has grown by one byte.

    Attributes:
        continued: hypotheses from before that some token still carries beyond the new end of the text.
        completed: hypotheses that end exactly at the new end of the text, each by one new token.
    """

    continued: list[Hypothesis]
    completed: list[Hypothesis]
