"""Contrastive decoding: say more of what one reading of the text knows and another does not.

One idea, five published forms. Each is a pure function over rows of logits (``[rows, vocab]``, or
log-probabilities: log_softmax is idempotent) that returns normalised fp32 log-probabilities:

- `uscd`: arXiv:2409.05923. Contrast with a prompt stripped of its examples, only where unsure.
- `contrastive`: arXiv:2210.15097, section 3. Expert against amateur, among plausible tokens.
- `cad`: arXiv:2305.14739. With and without the context.
- `cfg`: arXiv:2306.17806. With and without (or against) a prompt.
- `dexperts`: arXiv:2105.03023; proxy tuning, arXiv:2401.08565. Add what tuning changed in a small model.

Everywhere: a token that the first stream makes impossible stays impossible; one that only another
stream makes impossible gives no evidence, so it keeps its first-stream score; at the neutral strength
the first argument itself is returned.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from logitkit.params import is_neutral
from logitkit.processors.engine.log_probabilities import log_probabilities, normalised

Confidence = Literal["norm", "max", "entropy", "margin"]
Form = Literal["diff", "ratio"]


def confidence(logits: Tensor, measure: Confidence = "norm") -> Tensor:
    """How sure each row is, 0 to 1, comparable between vocabularies of different size.

    Args:
        logits: ``[rows, vocab]``.
        measure: ``norm`` the 2-norm of the probabilities; ``max`` the largest; ``margin`` the gap between
            the two largest; ``entropy`` 1 minus the entropy over its maximum, ln(vocab).

    Returns:
        ``[rows]``. The released USCD code uses the standard deviation u of the probabilities, which
        shrinks with the vocabulary V: ``norm == sqrt(u**2 * (V - 1) + 1 / V)``; its threshold
        0.005 at V = 32000 is 0.894 here, 0.0035 is 0.626.
    """
    p = logits.float().softmax(-1)
    if measure == "norm":
        norm: Tensor = torch.linalg.vector_norm(p, dim=-1)
        return norm
    if measure == "max":
        return p.amax(-1)
    if measure == "margin":
        best = p.topk(2, dim=-1).values
        return best[..., 0] - best[..., 1]
    negative_entropy: Tensor = torch.special.xlogy(p, p).sum(-1)
    return (1 + negative_entropy / math.log(p.shape[-1])).clamp(0, 1)


def uscd(
    standard: Tensor,
    lame: Tensor,
    *,
    rho: float = 0.7,
    gate: float = 0.894,
    head: float = 2 / 3,
    form: Form = "diff",
    measure: Confidence = "norm",
) -> Tensor:
    """Uncertainty-aware selective contrastive decoding, arXiv:2409.05923.

    With p and q the probabilities of the standard and the lame stream, rows whose confidence is at most
    ``gate`` become ``log(p - rho q)`` (form ``diff``, the authors' released code) or ``log p - rho log q``
    (form ``ratio``, the paper's overview figure), over the head ``{v: p_v >= head / vocab}``.

    Departures: the gate is a confidence that does not depend on the vocabulary's size (`confidence`);
    where no token is left, the row stays p (the code yields NaN); rows are independent.

    Args:
        standard: logits under the full prompt, ``[rows, vocab]``.
        lame: logits under the prompt without examples, same shape.
        rho: strength, >= 0; 0 returns ``standard``.
        gate: 0 to 1; a row is contrasted when its confidence is <= gate; 0 returns ``standard``.
        head: >= 0, a multiple of the mean probability 1 / vocab.
        form: ``diff`` or ``ratio``.
        measure: see `confidence`.

    Returns:
        ``[rows, vocab]``: contrasted rows as log-probabilities, the others as they came.
    """
    if is_neutral(rho, 0) or is_neutral(gate, 0):
        return standard
    fired = confidence(standard, measure) <= gate  # [rows]
    return torch.where(fired[:, None], uscd_contrast(standard, lame, rho=rho, head=head, form=form), standard)


def uscd_contrast(standard: Tensor, lame: Tensor, *, rho: float, head: float, form: Form) -> Tensor:
    """Contrast every row as in `uscd`, whatever its confidence; normalised log-probabilities."""
    logp, logq = log_probabilities(standard), _logp(lame)
    if form == "diff":
        # log(p - rho q) = log p + log(1 - rho q / p); where both are impossible the ratio is nan, and cut below
        score = logq.sub_(logp).exp_().mul_(-rho).clamp_min_(-1).log1p_().add_(logp)
    else:
        score = _no_evidence(torch.sub(logp, logq, alpha=rho, out=logq), logp)
    floor = math.log(max(head, 1e-45) / logp.shape[-1])  # finite: what is impossible lies below it
    score = score.masked_fill_(logp < floor, -torch.inf)
    nothing_left = score.amax(-1, keepdim=True) == -torch.inf
    return normalised(torch.where(nothing_left, logp, score, out=score).log_softmax(-1))


def contrastive(expert: Tensor, amateur: Tensor, *, beta: float = 0.5, alpha: float = 0.1) -> Tensor:
    """Contrastive decoding, arXiv:2210.15097, section 3: ``log p_expert - beta log p_amateur``.

    Only among the plausible tokens ``{v: p_expert(v) >= alpha max p_expert}``. The authors' code drops
    that mask in its greedy mode; here it always holds.

    Args:
        expert: logits of the strong model, ``[rows, vocab]``.
        amateur: logits of the weak model, same shape.
        beta: strength, >= 0; 0 returns ``expert``.
        alpha: plausibility, above 0 to 1; the expert's best token always stays.
    """
    if is_neutral(beta, 0):
        return expert
    first, logq = expert.float(), _logp(amateur)  # the expert's own normaliser cancels at the end
    score = _no_evidence(torch.sub(first, logq, alpha=beta, out=logq), first)
    implausible = first < first.amax(-1, keepdim=True) + math.log(alpha)
    return normalised(score.masked_fill_(implausible, -torch.inf).log_softmax(-1))


def cfg(conditional: Tensor, unconditional: Tensor, *, scale: float = 1.5) -> Tensor:
    """Classifier-free guidance, arXiv:2306.17806: ``log q + scale (log p - log q)``, normalised.

    Args:
        conditional: logits under the prompt (p), ``[rows, vocab]``.
        unconditional: logits without it, or under the negative prompt (q), same shape.
        scale: >= 0; 1 returns ``conditional``, 0 follows the second stream.
    """
    if is_neutral(scale, 1):
        return conditional
    logp, logq = log_probabilities(conditional), _logp(unconditional)
    one_sided = torch.minimum(logp, logq) == -torch.inf
    score = logq.lerp_(logp, scale)
    return normalised(torch.where(one_sided, logp, score, out=score).log_softmax(-1))


def cad(with_context: Tensor, without: Tensor, *, alpha: float = 0.5) -> Tensor:
    """Context-aware decoding, arXiv:2305.14739: ``(1 + alpha) log p - alpha log q``; equals ``cfg(1 + alpha)``.

    Args:
        with_context: logits under the whole prompt, ``[rows, vocab]``.
        without: logits under the prompt without its context, same shape.
        alpha: strength, >= 0; 0 returns ``with_context``.
    """
    return cfg(with_context, without, scale=1 + alpha)


def dexperts(base: Tensor, expert: Tensor, antiexpert: Tensor, *, alpha: float = 1.0) -> Tensor:
    """DExperts, arXiv:2105.03023, equation 2; proxy tuning, arXiv:2401.08565.

    ``log p_base + alpha (log p_expert - log p_antiexpert)``, normalised. DExperts first cuts the base to
    its nucleus: write ``top_p(0.9) | dexperts(...)`` for that.

    Args:
        base: logits of the large model, ``[rows, vocab]``.
        expert, antiexpert: logits of the tuned and the untuned (or anti-tuned) small model, same shape.
        alpha: strength; 0 returns ``base``; negative turns the roles around.
    """
    if is_neutral(alpha, 0):
        return base
    shift = _logp(expert).sub_(_logp(antiexpert)).nan_to_num_(nan=0, posinf=0, neginf=0)
    # the base's own normaliser cancels here
    return normalised(base.float().add(shift, alpha=alpha).log_softmax(-1))


def _logp(logits: Tensor) -> Tensor:
    """Log-probabilities in memory of our own: what follows may write over them.

    A fresh tensor at every operation would cost more than the arithmetic at large batches.
    """
    return logits.float().log_softmax(-1)


def _no_evidence(score: Tensor, first: Tensor) -> Tensor:
    """Keep the first stream's score where the second makes a token impossible, in place: there it is +inf."""
    return torch.where(score == torch.inf, first, score, out=score)
