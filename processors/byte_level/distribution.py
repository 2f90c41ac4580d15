"""The distribution of the next byte after a text, from the hypotheses of the text.

    joint(b) = sum over hypotheses h of P(h) * sum of p(r | h) over the allowed tokens r whose bytes begin with the
               pending bytes of h and the byte b
    joint(end) = sum over hypotheses h without pending bytes of P(h) * p(end token | h)

Divided by P(text) these are the probabilities of the next byte and of the end of the text.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.engine.tree_node import Node
from logitkit.processors.tokens.byte_trie import END


@dataclass(frozen=True, eq=False)
class ByteDistribution:
    """Distribution of the next byte after a text.

    Attributes:
        logp: log-probabilities in nats of the 256 bytes and, at index 256, of the end of the text; float64 ``[257]``.
            Their probabilities and the leak sum to 1, up to the error that ``bound`` limits.
        leak: probability, 0 to 1, that the model gives to tokens with which no canonical text continues.
        bound: upper bound in nats on how far the computed log-probability of the text is below the true one;
            0 where no hypothesis was pruned.

    >>> from logitkit.processors.byte_level import ByteTree
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> distribution = ByteTree(tiny_model(), tiny_tokenizer()).distribution(b"a")
    >>> distribution.logp.shape, distribution.bound
    (torch.Size([257]), 0.0)
    >>> round(float(distribution.logp.exp().sum()) + distribution.leak, 4)
    1.0
    """

    logp: Tensor
    leak: float
    bound: float


@dataclass(frozen=True, eq=False)
class CoverState:
    """A text and its hypotheses.

    Attributes:
        text: bytes of the text, with the space that the tokenizer puts before every text.
        hypotheses: token sequences that the model has read.
        pruned: token sequences that the model has not read because their share was below the tolerance. They are
            followed so that the error has a bound.
        logp: log-probability in nats that a text begins with these bytes.
    """

    text: bytes
    hypotheses: tuple[Hypothesis, ...]
    pruned: tuple[Hypothesis, ...]
    logp: float

    @property
    def written(self) -> bool:
        """Whether the tokenizer can write the text; True for bytes that are not UTF-8, which count in any way."""
        if any(hypothesis.allowed for hypothesis in (*self.hypotheses, *self.pruned)):
            return True
        try:
            codecs.getincrementaldecoder("utf-8")("strict").decode(self.text)
        except UnicodeDecodeError:
            return True
        return False


def nodes_of(states: Sequence[CoverState]) -> list[Node]:
    """Return the nodes of the hypotheses of some texts."""
    return [hypothesis.node for state in states for hypothesis in state.hypotheses if hypothesis.node is not None]


def distribution_after(state: CoverState, covers: Covers, end_tokens: Sequence[int]) -> ByteDistribution:
    """Return the distribution of the next byte after a text.

    Args:
        state: the text and its hypotheses, each read by the model.
        covers: the covers under which the hypotheses were found.
        end_tokens: ids of the tokens that end a text.
    """
    joint = np.full(257, -np.inf)
    for hypothesis in state.hypotheses:
        joint = np.logaddexp(joint, _joint(hypothesis, state.text, covers, end_tokens))
    logp = joint - state.logp if state.logp > -math.inf else joint
    missed = logsumexp([hypothesis.logp for hypothesis in state.pruned])
    bound = float(np.logaddexp(0.0, missed - state.logp)) if missed > -math.inf else 0.0
    leak = max(0.0, 1.0 - float(np.exp(logp).sum()))
    return ByteDistribution(logp=torch.from_numpy(logp), leak=leak, bound=bound)


def _joint(hypothesis: Hypothesis, text: bytes, covers: Covers, end_tokens: Sequence[int]) -> NDArray[np.float64]:
    """Return the joint log-probabilities of a hypothesis with each next byte and with the end, ``[257]``."""
    joint = np.full(257, -np.inf)
    assert hypothesis.node is not None and hypothesis.node.logp is not None
    pending = text[hypothesis.start :]
    low, high = covers.trie.range(pending)
    ids = covers.trie.ids[low:high]
    logp = np.where(covers.rule.allowed(hypothesis.context, ids), hypothesis.node.logp[ids], -np.inf)
    best = logp.max(initial=-np.inf)
    if best > -np.inf:
        next_bytes = covers.trie.next_byte(low, high, len(pending))
        sums = np.bincount(next_bytes, weights=np.exp(logp - best, dtype=np.float64), minlength=257)
        with np.errstate(divide="ignore"):
            joint = np.log(sums) + best + hypothesis.logp
    joint[END] = -np.inf  # a token of exactly the pending bytes leads to another hypothesis, not to the end
    if not pending and end_tokens and covers.rule.may_end(hypothesis.context):
        joint[END] = hypothesis.logp + logsumexp(hypothesis.node.logp[list(end_tokens)])
    return joint
