"""Next-token probabilities of the members of an ensemble, in the main vocabulary.

A member with the main tokenizer needs no translation. The probabilities of any other member are translated by its
`Alignment`. Members aligned by the method ``unite`` (UniTE, arXiv:2410.03777) are compared by logits instead: each
model's softmax is taken over the union of all models' likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from logitkit.processors.alignment.alignment import Alignment
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import fit, with_infinite_masks, within_width
from logitkit.processors.engine.streams import Stream
from logitkit.processors.ensemble.end_alignment import EndAlignment

UNITE_TOPK = 10  # tokens of each model that make up the union, as in UniTE
EVA_TOPK = 320  # tokens of a helper that are translated by embeddings, as in EVA (arXiv:2404.09492)


@dataclass(frozen=True, eq=False, kw_only=True)
class Member:
    """A helper model of an ensemble.

    Attributes:
        name: name of the model in the chain.
        read: a stream, or a function, from rows of main tokens ``[rows, length]`` to fp32 logits in the helper's own
            vocabulary, ``[rows, own vocab]``.
        alignment: from the helper's vocabulary to the main one; None: they are the same vocabulary.
        ends: aligns the helper's end tokens to those of the running `generate`; None: as in ``alignment``.
        is_main: the helper is the generating model under the same prompts, so it cannot change the ensemble.

    >>> Member(name="flat", read=lambda rows: torch.zeros(len(rows), 4)).alignment is None
    True
    """

    name: str
    read: Stream | Callable[[Tensor], Tensor]
    alignment: Alignment | None = None
    ends: EndAlignment | None = None
    is_main: bool = False

    def current(self) -> Member:
        """Return the member with the alignment for the end tokens of the running `generate`."""
        return self if self.ends is None else replace(self, alignment=self.ends.current(), ends=None)


class Probabilities(NamedTuple):
    """Next-token probabilities in the main vocabulary, fp32.

    Attributes:
        main: of the main model, ``[rows, vocab]``.
        helpers: of each helper, ``[rows, vocab]``; a row may sum to less than 1.
    """

    main: Tensor
    helpers: list[Tensor]


def member_probabilities(
    input_ids: Tensor, scores: Tensor, members: Sequence[Member], *, topk: int = 0
) -> Probabilities:
    """Return next-token probabilities of the main model and of each helper, in the main vocabulary.

    A token that the scores make impossible is impossible for all models. A helper's row sums to less than 1 where
    its alignment has no main token for some of its probability.

    Args:
        input_ids: rows of main tokens, ``[rows, length]``.
        scores: logits or log-probabilities of the main model, ``[rows, vocab]``.
        members: the helpers.
        topk: number of likeliest tokens of each model to use, ``>= 0``. 0: all tokens; but `UNITE_TOPK` with
            ``unite``, and `EVA_TOPK` for a helper aligned by ``embedding``.

    >>> helper = Member(name="flat", read=lambda rows: torch.zeros(len(rows), 2))
    >>> main, (flat,) = member_probabilities(torch.zeros(1, 1), torch.tensor([[0.75, 0.25]]).log(), [helper])
    >>> main, flat
    (tensor([[0.7500, 0.2500]]), tensor([[0.5000, 0.5000]]))
    """
    members = [member.current() for member in members]
    logits = [with_infinite_masks(member.read(input_ids)) for member in members]
    unaligned = [own for own, member in zip(logits, members, strict=True) if member.alignment is None]
    logp = log_probabilities(within_width(scores, scores, *unaligned))
    possible = logp > -torch.inf
    if any(member.alignment is not None and member.alignment.reverse is not None for member in members):
        return _over_union(logp, logits, members, topk or UNITE_TOPK)
    helpers = [_translated(own, member, topk, logp.shape[-1]) for own, member in zip(logits, members, strict=True)]
    main = logp if not 0 < topk < logp.shape[-1] else _only_likeliest(logp, topk)
    return Probabilities(main.softmax(-1), [p * possible for p in helpers])


def reachable_tokens(member: Member) -> Tensor | None:
    """Return the main tokens that a helper can give probability, bool ``[main size]``; None: all.

    >>> reachable_tokens(Member(name="flat", read=lambda rows: rows)) is None
    True
    """
    member = member.current()
    if member.alignment is None:
        return None
    if member.alignment.reverse is not None:
        return member.alignment.reverse >= 0
    ones = torch.ones(1, len(member.alignment.targets), device=member.alignment.targets.device)
    return member.alignment.translate(ones)[0] > 0


def _translated(logits: Tensor, member: Member, topk: int, width: int) -> Tensor:
    """Return a helper's probabilities in the main vocabulary, ``[rows, width]``."""
    if member.alignment is None:
        logits = fit(logits, width)
        return (_only_likeliest(logits, topk) if 0 < topk < width else logits).softmax(-1)
    topk = EVA_TOPK if topk == 0 and member.alignment.method == "embedding" else topk
    if 0 < topk < logits.shape[-1]:
        best, ids = logits.topk(topk, dim=-1)
        return fit_probabilities(member.alignment.translate(best.softmax(-1), ids), width)
    return fit_probabilities(member.alignment.translate(logits.softmax(-1)), width)


def _over_union(logp: Tensor, logits: Sequence[Tensor], members: Sequence[Member], topk: int) -> Probabilities:
    """Return the softmax of each model's logits over the union of all models' likeliest tokens (UniTE)."""
    width = logp.shape[-1]
    union = _is_likeliest(logp, topk)
    in_main: list[Tensor] = []  # logits of each helper by main token
    for own, member in zip(logits, members, strict=True):
        if member.alignment is None or member.alignment.reverse is None:
            own = fit(own, width)
            union = union | _is_likeliest(own, topk)
        else:
            best, ids = own.topk(min(topk, own.shape[-1]), dim=-1)
            union = union | (fit_probabilities(member.alignment.translate(torch.ones_like(best), ids), width) > 0)
            reverse = member.alignment.reverse
            own = fit(own[:, reverse.clamp_min(0)].masked_fill(reverse < 0, -torch.inf), width)
        in_main.append(own)
    union = union & (logp > -torch.inf)
    helpers = []
    for own in in_main:
        masked = own.masked_fill(~union, -torch.inf)
        has_token = (masked > -torch.inf).any(-1, keepdim=True)
        helpers.append(torch.where(has_token, masked, 0).softmax(-1) * has_token)
    return Probabilities(logp.masked_fill(~union, -torch.inf).softmax(-1), helpers)


def _only_likeliest(logits: Tensor, topk: int) -> Tensor:
    """Return the logits of the likeliest tokens, and -inf for all others."""
    best, ids = logits.topk(topk, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter_(-1, ids, best)


def _is_likeliest(logits: Tensor, topk: int) -> Tensor:
    """Return which tokens are among the likeliest, bool ``[rows, vocab]``."""
    return _only_likeliest(logits, min(topk, logits.shape[-1])) > -torch.inf


def fit_probabilities(p: Tensor, width: int) -> Tensor:
    """Bring probabilities, or a mask, to the width of the scores; ids beyond the alignment have value 0.

    Scores may be wider than an alignment, which has the vocabulary size of the model's configuration.

    >>> fit_probabilities(torch.tensor([[0.5, 0.5]]), 3)
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    missing = width - p.shape[-1]
    return torch.nn.functional.pad(p, (0, missing)) if missing > 0 else p[..., :width]
