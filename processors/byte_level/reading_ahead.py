"""The token with which a text will most likely go on, read before the text reaches its end.

A forward over two tokens costs hardly more than a forward over one: both read all weights of the model once. So where
a forward is needed for one hypothesis, the likeliest next token of the text is read in the same forward. Where the text
then goes on with this token, the end of the token needs no forward of its own. Distributions do not change: a token
that was read ahead is a node of the KV tree like any other, and counts only when a hypothesis reaches it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.engine.tree_node import Node

LEAST_SHARE = 0.1  # least probability, given the text, of a token that is read ahead; a heuristic
MOST_NODES = 8  # tokens up to which one forward costs about as much as for one; on a CPU about 1.1 to 1.8 times


class LikelyToken(NamedTuple):
    """A token that a text will likely go on with.

    Attributes:
        logp: log-probability in nats, given the text.
        node: the node before the token.
        token: its id.
    """

    logp: float
    node: Node
    token: int


def likely_token(continued: Sequence[Hypothesis], text: bytes, logp: float, covers: Covers) -> LikelyToken | None:
    """Return the likeliest token that carries a hypothesis beyond the end of a text; None if none is likely.

    Args:
        continued: hypotheses with pending bytes.
        text: the text.
        logp: its log-probability in nats.
        covers: the covers under which the hypotheses were found.
    """
    likeliest = None
    for hypothesis in continued:
        node = hypothesis.node
        if node is None or node.logp is None or hypothesis.logp - logp < math.log(LEAST_SHARE):
            continue
        ids = covers.tokens_beyond(hypothesis, text)
        token = int(ids[node.logp[ids].argmax()])
        share = hypothesis.logp + float(node.logp[token]) - logp
        if share >= math.log(LEAST_SHARE) and (likeliest is None or share > likeliest.logp):
            likeliest = LikelyToken(share, node, token)
    return likeliest
