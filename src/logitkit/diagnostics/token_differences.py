"""What two distributions of the next token, one of each model, say at every token of a text.

The divergences are those of `logitkit.processors.engine.divergence`. Contrastive estimation is that of
arXiv:2411.19943, section 3.2, which finds the critical tokens of a text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from logitkit.processors.engine import divergence, js_bits

DEPTHS = (1, 10, 100)  # ranks under the model up to which the probability that others gain is summed
LISTED = 3  # tokens that gain most, and as many that lose most, at one place


class TokenDifferences(NamedTuple):
    """Columns of numbers, one row for each token of a text; a pair is that of the model and that of the other one.

    Attributes:
        ids: the tokens, ``[tokens]``.
        entropy: pairs of entropies before the token, nats, float64 ``[tokens, 2]``.
        logp: pairs of log-probabilities of the token, nats, float64 ``[tokens, 2]``.
        rank: pairs of ranks of the token, 1 is the most likely, ``[tokens, 2]``.
        likeliest: pairs of the most likely token, ``[tokens, 2]``.
        likeliest_p: pairs of its probability, float64 ``[tokens, 2]``.
        kl: KL(model, other), nats, float64 ``[tokens]``; inf where the other lacks what the model has.
        reverse_kl: KL(other, model), the same with the models exchanged.
        js_bits: Jensen-Shannon divergence, bits, 0 to 1, float64 ``[tokens]``.
        contrast: `contrastive_estimate` of the token, nats, float64 ``[tokens]``; low means critical.
        moved: probability that stands elsewhere under the other model, 0 to 1, float64 ``[tokens]``: half the sum of
            the absolute differences.
        gained_within: of ``moved``, the part on tokens of the model's first 1, 10 and 100, float64 ``[tokens, 3]``; of
            tied tokens any.
        movers: the tokens that gain most, then those that lose most, at most three each, ``[tokens, 6]``.
        mover_p: pairs of their probabilities, float64 ``[tokens, 6, 2]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        >>> found = token_differences(p, q, torch.tensor([1]))
        >>> round(float(found.moved), 4), found.rank.tolist(), found.likeliest.tolist()
        (0.25, [[1, 1]], [[0, 1]])
    """

    ids: Tensor
    entropy: Tensor
    logp: Tensor
    rank: Tensor
    likeliest: Tensor
    likeliest_p: Tensor
    kl: Tensor
    reverse_kl: Tensor
    js_bits: Tensor
    contrast: Tensor
    moved: Tensor
    gained_within: Tensor
    movers: Tensor
    mover_p: Tensor


def token_differences(
    model: Tensor, other: Tensor, ids: Tensor, *, beta: float = 1.0, plausible: float = 0.0
) -> TokenDifferences:
    """Return what two models say at some tokens.

    Args:
        model, other: logits or log-probabilities of the two models before each token, ``[tokens, vocab]``; -inf marks
            an impossible token.
        ids: the tokens, ``[tokens]``.
        beta, plausible: of the contrastive estimate.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log()
        >>> float(token_differences(p, q, torch.tensor([0])).js_bits)
        1.0
    """
    first, second = (logits.double().log_softmax(-1) for logits in (model, other))
    both = torch.stack([first, second], dim=-1)  # [tokens, vocab, 2]
    own = both.gather(1, ids[:, None, None].expand(-1, 1, 2))  # [tokens, 1, 2]
    p = both.exp()
    gain = p[..., 1] - p[..., 0]
    depths = [min(depth, gain.shape[-1]) for depth in DEPTHS]
    gained = gain.clamp_min(0).gather(-1, first.topk(depths[-1], dim=-1).indices).cumsum(-1)
    listed = min(LISTED, gain.shape[-1])
    movers = torch.cat([gain.topk(listed).indices, (-gain).topk(listed).indices], dim=-1)
    return TokenDifferences(
        ids=ids,
        entropy=-torch.where(both > -torch.inf, p * both, 0.0).sum(1),
        logp=own[:, 0],
        rank=(both > own).sum(1) + 1,
        likeliest=both.argmax(1),
        likeliest_p=both.amax(1).exp(),
        kl=divergence(first, second, "kl"),
        reverse_kl=divergence(first, second, "reverse_kl"),
        js_bits=js_bits(first, second),
        contrast=contrastive_estimate(first, second, beta=beta, plausible=plausible).gather(-1, ids[:, None])[:, 0],
        moved=divergence(first, second, "tv"),
        gained_within=gained[:, [depth - 1 for depth in depths]],
        movers=movers,
        mover_p=p.gather(1, movers[..., None].expand(-1, -1, 2)),
    )


def contrastive_estimate(model: Tensor, other: Tensor, *, beta: float = 1.0, plausible: float = 0.0) -> Tensor:
    """Return ``log s = (1 + beta) log q - beta log p - log Z``, arXiv:2411.19943, section 3.2.

    p is the distribution of the model, q that of the other one, Z the sum over the vocabulary. In the paper q was
    tuned on right answers and p on wrong ones: a low value marks a token that leads to a wrong answer. Of a small and
    a large model it marks a token that the small one finds likelier than the large one does.

    Departures: a token that one of the two finds impossible is left out of Z. Its value is 0 where only the model finds
    it impossible, and -inf where the other one does. With ``plausible`` above 0, Z is the sum over the token itself and
    those whose probability under the other one is at least this share of the largest. Without it, Z is often that of
    tokens that both find most unlikely, where a ratio of two probabilities says little.

    Args:
        model, other: log-probabilities, ``[..., vocab]``; -inf marks an impossible token.
        beta: strength, > 0.
        plausible: see above, 0 to 1; 0 is the estimate of the paper.

    Returns:
        Nats, at most 0, ``[..., vocab]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.2, 0.8]]).log()
        >>> contrastive_estimate(p, q).exp()  # 0.04 / 0.5 and 0.64 / 0.5, of their sum
        tensor([[0.0588, 0.9412]])
    """
    possible = (model > -torch.inf) & (other > -torch.inf)
    z = torch.where(possible, (1 + beta) * other - beta * model, -torch.inf)
    limit = other.amax(-1, keepdim=True) + (math.log(plausible) if plausible else -math.inf)
    in_all = possible & (other >= limit)
    total = z.masked_fill(~in_all, -torch.inf).logsumexp(-1, keepdim=True)
    z = z - torch.where(in_all, total, torch.logaddexp(total, z))
    return torch.where((model == -torch.inf) & (other > -torch.inf), 0.0, z).nan_to_num(nan=-math.inf, neginf=-math.inf)
