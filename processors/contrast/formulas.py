"""Contrastive decoding: raise the tokens that one stream prefers more strongly than another.

The five published formulas are pure functions over rows of logits, ``[rows, vocab]``. Log-probabilities are
accepted too, because log_softmax leaves them unchanged. Results are normalised fp32 log-probabilities.

- `uscd`: arXiv:2409.05923. Contrast with a prompt without examples, at uncertain steps only.
- `contrastive`: arXiv:2210.15097, section 3. A strong model against a weak one, among plausible tokens.
- `cad`: arXiv:2305.14739. The prompt with its context against the prompt without.
- `cfg`: arXiv:2306.17806. The prompt against no prompt or a negative prompt.
- `dexperts`: arXiv:2105.03023, and proxy tuning, arXiv:2401.08565. A tuned small model against an untuned one.

Three rules hold for all of them. A token that is impossible (``-inf``) under the first stream stays
impossible. A token that is impossible only under another stream keeps its score under the first stream. At the
neutral strength the first argument itself is returned. A token masked with ``finfo.min`` counts as impossible.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from logitkit.params import is_neutral
from logitkit.processors.contrast.confidence_measures import Confidence, confidence
from logitkit.processors.contrast.tilting import Tilt, tilted
from logitkit.processors.engine.log_probabilities import log_probabilities, mark_normalised, probabilities
from logitkit.processors.engine.scores import masked_log_softmax

Form = Literal["diff", "ratio"]

# In place of log-probabilities of impossible tokens: so far from others that a difference shows where it came from.
FAR = 1e30


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

    Let p and q be the probabilities under the standard and the lame prompt. Rows whose confidence is at most
    ``gate`` become ``log(p - rho q)`` (form ``diff``, the released code) or ``log p - rho log q`` (form
    ``ratio``, the paper's overview figure), over the head ``{v: p_v >= head / vocab}``.

    Departures: the confidence does not depend on the vocabulary size; a row that loses every token is unchanged.

    Args:
        standard: logits under the full prompt, ``[rows, vocab]``.
        lame: logits under the prompt without examples, same shape.
        rho: contrast strength, >= 0; 0 returns ``standard``.
        gate: confidence threshold, 0 to 1; 0 returns ``standard``.
        head: >= 0, a multiple of the mean probability 1 / vocab.
        form, measure: see above, and `confidence`.

    Returns:
        ``[rows, vocab]``: contrasted rows as log-probabilities, other rows unchanged.

    Example:
        >>> import torch
        >>> standard = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
        >>> lame = torch.tensor([[0.25, 0.6, 0.1, 0.05]]).log()
        >>> uscd(standard, lame, rho=0.5, gate=1.0, head=0.0).exp()  # p - q / 2 is 3/8, 0 and 3/20
        tensor([[0.7143, 0.0000, 0.2857, 0.0000]])
    """
    if uscd_is_neutral(rho=rho, gate=gate):
        return standard
    fired = uscd_gate(standard, gate=gate, measure=measure).fired
    return uscd_where(fired, standard, lame, rho=rho, head=head, form=form)


class UscdGate(NamedTuple):
    """The decision of the USCD gate on each row.

    Attributes:
        confidence: the confidence in each row, ``[rows]`` fp32, 0 to 1.
        fired: whether the row is to be contrasted, ``[rows]`` bool.
    """

    confidence: Tensor
    fired: Tensor


def uscd_is_neutral(*, rho: float, gate: float) -> bool:
    """Return whether `uscd` changes no row at these values, so that the second stream need not be read."""
    return is_neutral(rho, 0) or is_neutral(gate, 0)


def uscd_gate(standard: Tensor, *, gate: float, measure: Confidence = "norm") -> UscdGate:
    """Decide which rows `uscd` contrasts: those whose confidence is at most ``gate``.

    Args:
        standard: logits under the full prompt, ``[rows, vocab]``.
        gate: confidence threshold, 0 to 1. A row at the threshold is contrasted.
        measure: see `confidence`.

    Example:
        >>> import torch
        >>> uscd_gate(torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), gate=0.8).fired
        tensor([ True, False])
    """
    certainty = confidence(standard, measure)
    return UscdGate(certainty, certainty <= gate)


def uscd_where(fired: Tensor, standard: Tensor, lame: Tensor, *, rho: float, head: float, form: Form) -> Tensor:
    """Contrast the rows on which the gate fired and leave the others unchanged.

    Args:
        fired: rows to contrast, ``[rows]`` bool.
        standard: logits under the full prompt, ``[rows, vocab]``.
        lame: logits under the prompt without examples, same shape; ignored in rows where ``fired`` is False.
        rho: contrast strength, above 0.
        head: >= 0, a multiple of the mean probability 1 / vocab.
        form: ``diff`` or ``ratio``.

    Returns:
        ``[rows, vocab]``: contrasted rows as log-probabilities; other rows, and rows that lose every token, unchanged.

    Example:
        >>> import torch
        >>> standard = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
        >>> lame = torch.tensor([[0.2, 0.8], [0.2, 0.8]]).log()
        >>> fired = torch.tensor([True, False])
        >>> uscd_where(fired, standard, lame, rho=1.0, head=0.0, form="ratio").exp()
        tensor([[0.8000, 0.2000],
                [0.5000, 0.5000]])
    """
    score = _uscd_score(standard, lame, rho=rho, head=head, form=form)
    contrasted = fired & (score.amax(-1) != -torch.inf)
    return torch.where(contrasted[:, None], score.log_softmax(-1), standard)


def _uscd_score(standard: Tensor, lame: Tensor, *, rho: float, head: float, form: Form) -> Tensor:
    """Return the scores of `uscd` before they are normalised; -inf outside the head."""
    rho, share = min(rho, FAR), head / standard.shape[-1]
    if form == "diff":
        # A token at the edge of the head stays whatever its probability is rounded to.
        inside = torch.threshold(probabilities(standard), share * (1 - 1e-6), 0.0)
        return inside.sub_(lame.float().softmax(-1), alpha=rho).relu_().log_()
    inside = torch.threshold(log_probabilities(standard), math.log(max(share, 1e-45)) - 1e-6, -torch.inf)
    return inside.sub_(masked_log_softmax(lame, masked=0.0), alpha=rho)


def contrastive(
    expert: Tensor, amateur: Tensor, *, beta: float = 0.5, alpha: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """Contrastive decoding, arXiv:2210.15097, section 3: ``log p_expert - beta log p_amateur``.

    Tokens outside the plausible set ``{v: p_expert(v) >= alpha max p_expert}`` become impossible. Departure: the
    authors' code omits this mask in its greedy mode; here the mask always applies.

    Args:
        expert: logits of the strong model, ``[rows, vocab]``.
        amateur: logits of the weak model, same shape.
        beta: contrast strength, >= 0; 0 returns ``expert``.
        alpha: plausibility threshold, above 0, at most 1. The expert's best token is always plausible.
        temperature: of the amateur, above 0: its logits are divided by this number.

    Returns:
        log-probabilities, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> expert = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> amateur = torch.tensor([[0.25, 0.6, 0.15]]).log()
        >>> contrastive(expert, amateur, beta=1.0, alpha=0.6).exp()  # p / q is 2 and 1/2; token 2 is implausible
        tensor([[0.8000, 0.2000, 0.0000]])
    """
    if is_neutral(beta, 0):
        return expert
    logp, logq = log_probabilities(expert), masked_log_softmax(amateur, masked=0.0 if temperature == 1 else -torch.inf)
    if temperature != 1:
        logq = masked_log_softmax(logq / temperature, masked=0.0)
    implausible = logp < logp.amax(-1, keepdim=True) + math.log(alpha)
    score = logp.sub(logq, alpha=min(beta, FAR)).masked_fill_(implausible, -torch.inf)
    return mark_normalised(score.log_softmax(-1))


def cfg(conditional: Tensor, unconditional: Tensor, *, scale: float = 1.5, divergence: Tilt = "reverse_kl") -> Tensor:
    """Classifier-free guidance, arXiv:2306.17806: ``log q + scale (log p - log q)``, normalised.

    Args:
        conditional: logits under the prompt (p), ``[rows, vocab]``.
        unconditional: logits without the prompt, or under the negative prompt (q), same shape.
        scale: guidance scale, >= 0; 1 returns ``conditional``, 0 gives q.
        divergence: ``reverse_kl`` gives the formula above, the optimum of the reward ``r = (scale - 1) log(p / q)``
            under reverse KL. ``forward_kl`` and ``js`` give the optimum under these, see `tilted`.

    Returns:
        log-probabilities, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.4, 0.6]]).log()
        >>> cfg(p, q, scale=2.0).exp()  # proportional to p**2 / q
        tensor([[0.7714, 0.2286]])
    """
    if is_neutral(scale, 1):
        return conditional
    logp = log_probabilities(conditional)
    # The difference is 0 where a token is impossible under one stream or both: it keeps its score under the first one.
    difference = torch.threshold_(logp - masked_log_softmax(unconditional, masked=FAR), -FAR / 2, 0.0)
    if divergence != "reverse_kl":
        return tilted(logp, difference.mul_(scale - 1), divergence)
    return mark_normalised(torch.add(logp, difference, alpha=scale - 1).log_softmax(-1))


def cad(with_context: Tensor, without: Tensor, *, alpha: float = 0.5) -> Tensor:
    """Context-aware decoding, arXiv:2305.14739: ``(1 + alpha) log p - alpha log q``.

    The result equals `cfg` with ``scale = 1 + alpha``.

    Args:
        with_context: logits under the whole prompt (p), ``[rows, vocab]``.
        without: logits under the prompt without its context (q), same shape.
        alpha: strength, >= 0; 0 returns ``with_context``.

    Returns:
        log-probabilities, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.4, 0.6]]).log()
        >>> cad(p, q, alpha=1.0).exp()
        tensor([[0.7714, 0.2286]])
    """
    return cfg(with_context, without, scale=1 + alpha)


def dexperts(
    base: Tensor, expert: Tensor, antiexpert: Tensor, *, alpha: float = 1.0, divergence: Tilt = "reverse_kl"
) -> Tensor:
    """DExperts, arXiv:2105.03023, equation 2, and proxy tuning, arXiv:2401.08565.

    The result is ``log p_base + alpha (log p_expert - log p_antiexpert)``, normalised. Departure: DExperts first
    restricts the base to its nucleus; the chain ``top_p(0.9) | dexperts(...)`` does so.

    Args:
        base: logits of the large model, ``[rows, vocab]``.
        expert: logits of the tuned small model, same shape.
        antiexpert: logits of the untuned (or anti-tuned) small model, same shape.
        alpha: strength; 0 returns ``base``; a negative value exchanges expert and antiexpert.
        divergence: as in `cfg`, for the reward ``alpha (log p_expert - log p_antiexpert)``.

    Returns:
        log-probabilities, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> base, expert, antiexpert = (torch.tensor([[p, 1 - p]]).log() for p in (0.5, 0.8, 0.5))
        >>> dexperts(base, expert, antiexpert).exp()
        tensor([[0.8000, 0.2000]])
    """
    if is_neutral(alpha, 0):
        return base
    shift = masked_log_softmax(expert).sub_(masked_log_softmax(antiexpert)).nan_to_num_(nan=0, posinf=0, neginf=0)
    if divergence != "reverse_kl":
        return tilted(log_probabilities(base), alpha * shift, divergence)
    return mark_normalised(log_probabilities(base).add(shift, alpha=alpha).log_softmax(-1))
