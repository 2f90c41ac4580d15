"""Entropies of the tokens of a text: of single tokens, of tokens given those before them, and efficiencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitkit.errors import ParameterError

ALPHA = 2.5  # order of the Renyi entropy in arXiv:2306.16842, section 5
Counts = NDArray[np.int64]


class TokenEntropies(NamedTuple):
    """Entropies of the tokens of a text, from their frequencies there, in bits a token.

    Entropies from frequencies are too low on short texts: with n tokens none can be above log2 n, and the conditional
    ones fall to 0.

    Attributes:
        tokens: number of tokens.
        distinct: number of different tokens.
        unigram: entropy of a token.
        given_one: entropy of a token given the token before it.
        given_two: entropy of a token given the two tokens before it.
        efficiency: ``unigram`` as a share of that of a uniform distribution over the vocabulary.
        renyi_efficiency: the same of the Renyi entropy of order 2.5.

    Example:
        >>> TokenEntropies(8, 2, 1.0, 0.5, 0.0, 0.1, 0.1).unigram
        1.0
    """

    tokens: int
    distinct: int
    unigram: float
    given_one: float
    given_two: float
    efficiency: float
    renyi_efficiency: float


def token_entropies(segments: Sequence[Sequence[int]], vocabulary: int) -> TokenEntropies:
    """Return the entropies of the tokens of a text.

    The conditional entropies of the token stream follow arXiv:2601.09039; the Renyi efficiency is that of
    arXiv:2306.16842, equation 7, over all tokens of the vocabulary, also those that do not occur.

    Args:
        segments: the tokens of each part of the text; no token is conditioned on those of another part.
        vocabulary: number of tokens that the tokenizer can write, at least 2.

    Raises:
        ParameterError: no token is given.

    Example:
        >>> found = token_entropies([[0, 1, 0, 1, 0, 1, 0, 1]], vocabulary=16)
        >>> found.unigram, found.given_one, found.efficiency
        (1.0, 0.0, 0.25)
    """
    arrays = [np.asarray(segment, dtype=np.int64) for segment in segments]
    if not sum(map(len, arrays)):
        raise ParameterError("token_entropies", "segments", "at least one token", 0)
    counts = np.unique(np.concatenate(arrays), return_counts=True)[1]
    shares = counts / counts.sum()
    unigram, most = _entropy(counts), math.log2(max(2, vocabulary))
    renyi = math.log2(float((shares**ALPHA).sum())) / (1 - ALPHA)
    given_one, given_two = (_conditional_entropy(arrays, before) for before in (1, 2))
    return TokenEntropies(
        tokens=int(counts.sum()),
        distinct=len(counts),
        unigram=unigram,
        given_one=given_one,
        given_two=given_two,
        efficiency=unigram / most,
        renyi_efficiency=abs(renyi) / most,  # not -0.0 for a single token
    )


def _conditional_entropy(arrays: Sequence[Counts], before: int) -> float:
    """Return the entropy in bits of a token given the ``before`` tokens in front of it, 0 where no token has them."""
    windows = [np.lib.stride_tricks.sliding_window_view(array, before + 1) for array in arrays if len(array) > before]
    if not windows:
        return 0.0
    whole = np.concatenate(windows)
    joint, context = (np.unique(part, axis=0, return_counts=True)[1] for part in (whole, whole[:, :-1]))
    return max(0.0, _entropy(joint) - _entropy(context))


def _entropy(counts: Counts) -> float:
    """Return the entropy in bits of a distribution that is given by counts."""
    shares = counts / counts.sum()
    return max(0.0, float(-(shares * np.log2(shares)).sum()))
