"""Target distributions of sequential Monte Carlo, each as a proposal and the weight that goes with it.

A target is a sequence of unnormalised functions ``gamma_t`` of the first ``t`` tokens of a row. Where
``gamma_t(x v)`` is known for every next token ``v``, the proposal is ``q(v) = gamma_t(x v) / sum_u gamma_t(x u)``, and
the weight of a row grows by ``sum_u gamma_t(x u) / gamma_(t-1)(x)`` whatever token is drawn, so that it is known before
the draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from logitkit.errors import ScoresError
from logitkit.processors.engine.constraints import Constraint
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.scores import fit
from logitkit.processors.searches.rows import Rows


class Proposal(NamedTuple):
    """The proposal of one step.

    Attributes:
        logq: log-probabilities of the next token, nats, ``[rows, vocab]``; all -inf where no token leads on.
        log_growth: what the step adds to the log-weight of each row before its token is drawn, nats, ``[rows]``.
        tokens: the token of each row where the target has drawn it together with the growth, ``[rows]``; None: it is
            to be drawn from ``logq``.
    """

    logq: Tensor
    log_growth: Tensor
    tokens: Tensor | None = None

    def select(self, index: Tensor) -> Proposal:
        """Return the proposal of the rows with these numbers."""
        tokens = None if self.tokens is None else self.tokens[index]
        return Proposal(self.logq[index], self.log_growth[index], tokens)


class Target(Protocol):
    """A target distribution of sequences."""

    def propose(self, rows: Rows) -> Proposal:
        """Return the proposal of the next token of each row."""

    def drawn(self, rows: Rows) -> Tensor | None:
        """Note the token that was appended to each row; return what it adds to the log-weights, or None: nothing."""

    def select(self, index: Tensor) -> None:
        """Keep what belongs to the rows with these numbers."""

    def final(self, rows: Rows) -> Tensor | None:
        """Return what the end of the rows adds to their log-weights, ``[rows]``; None: nothing."""


class _Stateless:
    """What a target without a state of its own answers."""

    def drawn(self, rows: Rows) -> Tensor | None:
        """Return None: the token changes no weight."""
        return None

    def select(self, index: Tensor) -> None:
        """Do nothing: there is no state."""

    def final(self, rows: Rows) -> Tensor | None:
        """Return None: the end changes no weight."""
        return None


class Power(_Stateless):
    """``gamma(x) = p(x)^alpha``: sharper than the law for alpha > 1 as a whole sequence, and not token by token.

    The growth is ``log sum_v p(v)^alpha``. Source: arXiv:2510.14901.

    Args:
        alpha: exponent, > 0; at 1 the target is the law itself.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def propose(self, rows: Rows) -> Proposal:
        """Return ``p(v)^alpha``, normalised, and the logarithm of its sum."""
        return normalised(rows.law() * self.alpha)


class Constrained(_Stateless):
    """``gamma(x) = p(x)`` for texts that a constraint allows, and 0 for others and for texts that have not ended.

    The growth is the logarithm of the probability of the allowed tokens. Rejecting tokens without this weight, as a
    mask does, prefers texts that begin likely and can only go on unlikely.

    Args:
        constraints: say which tokens may follow a row; all of them must allow a token.
    """

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = tuple(constraints)

    def propose(self, rows: Rows) -> Proposal:
        """Return the law of the allowed tokens, and the logarithm of their probability."""
        law = rows.law()
        for constraint in self.constraints:
            allowed = constraint.allowed(rows.ids)[:, : law.shape[1]].to(law.device)
            beyond = law.shape[1] - allowed.shape[1]
            law = law.masked_fill(~torch.nn.functional.pad(allowed, (0, beyond), value=False), -torch.inf)
        return normalised(law)

    def final(self, rows: Rows) -> Tensor | None:
        """Return -inf for rows that have not ended."""
        zero = torch.zeros(len(rows), dtype=torch.float64, device=rows.ids.device)
        return zero.masked_fill(~rows.ended, -torch.inf)


class Combined(_Stateless):
    """``gamma(x)`` is a mean of the probabilities that several models give to the whole text ``x``.

    A product of next-token laws is a product of sequence laws; the smaller one, or a power mean, of next-token laws is
    not that of the sequences, whose probabilities are carried along here. Source: arXiv:2603.05432.

    Models over bytes give probabilities to the bytes of a text, so that their tokenizers may differ.

    Args:
        combine: ``f(log P_1, ..., log P_K)``, from ``[K, rows, vocab]`` to ``[rows, vocab]``.
        streams: the other models, each a stream of logits; the first model is the generating one under its chain.
    """

    def __init__(self, combine: Callable[[Tensor], Tensor], streams: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self.combine, self.streams = combine, tuple(streams)
        self._logp: Tensor | None = None  # of each row so far, float64 [K, rows]
        self._next: Tensor | None = None  # of each row with each next token, float64 [K, rows, vocab]

    def propose(self, rows: Rows) -> Proposal:
        """Return the mean of the probabilities of the text with each next token, normalised, and its growth."""
        law = rows.law()
        others = [log_probabilities(fit(stream(rows.ids), law.shape[1])) for stream in self.streams]
        laws = torch.stack([law, *others]).double()
        if self._logp is None:
            self._logp = laws.new_zeros(laws.shape[:2])
        self._next = self._logp[..., None] + laws
        proposal = normalised(self.combine(self._next))
        now = self.combine(self._logp[..., None])[:, 0]
        # A row that some step gave the weight 0 keeps it, whatever follows.
        return Proposal(proposal.logq, torch.where(now == -torch.inf, 0.0, proposal.log_growth - now))

    def drawn(self, rows: Rows) -> Tensor | None:
        """Note the probabilities of the texts with their new token; rows that had ended keep theirs."""
        assert self._logp is not None and self._next is not None
        tokens = rows.ids[:, -1].expand(len(self._next), -1)
        grown = self._next.gather(-1, tokens[..., None])[..., 0]
        self._logp, self._next = torch.where(rows.grew, grown, self._logp), None
        return None

    def select(self, index: Tensor) -> None:
        """Keep the probabilities of the rows with these numbers."""
        self._logp = None if self._logp is None else self._logp[:, index]
        self._next = None if self._next is None else self._next[:, index]


class Weighted(_Stateless):
    """``gamma(x) = p(x) exp(w(x))`` with a function ``w`` of the user.

    Args:
        log_weight: from rows, ``[rows, length]``, prompts included, to nats, ``[rows]``; -inf: a weight of 0.
        name: of the function, for errors.
    """

    def __init__(self, log_weight: Callable[[Tensor], Tensor], name: str) -> None:
        self.log_weight, self.name = log_weight, name
        self._now: Tensor | None = None

    def propose(self, rows: Rows) -> Proposal:
        """Return the law; its growth is 0."""
        law = rows.law()
        if self._now is None:
            self._now = self._asked(rows)
        return Proposal(law, law.new_zeros(len(law), dtype=torch.float64))

    def drawn(self, rows: Rows) -> Tensor | None:
        """Return the growth of the function; 0 for rows that had ended, and where both weights are 0."""
        assert self._now is not None
        before, now = self._now, torch.where(rows.grew, self._asked(rows), self._now)
        self._now = now
        return torch.where(now == before, 0.0, now - before)

    def select(self, index: Tensor) -> None:
        """Keep the weights of the rows with these numbers."""
        self._now = None if self._now is None else self._now[index]

    def _asked(self, rows: Rows) -> Tensor:
        """Return the weights of the rows, float64 ``[rows]``.

        Raises:
            ScoresError: the function returns another shape, NaN, or an infinite weight.
        """
        said = self.log_weight(rows.ids)
        try:
            given = torch.as_tensor(said)
        except (TypeError, ValueError, RuntimeError):  # no numbers at all
            given = torch.tensor(math.nan).expand(len(rows))
        if given.shape != (len(rows),) or bool((given.isnan() | (given == torch.inf)).any()):
            got = f"shape {[*given.shape]}" if given.shape != (len(rows),) else str(given.tolist())[:80]
            raise ScoresError(
                f"smc: {self.name} must return one number below infinity for each of {len(rows)} rows, got {got}; "
                "correct the function"
            )
        return given.double().to(rows.ids.device)


def product(logp: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_k w_k log P_k``, the logarithm of a weighted geometric mean or product.

    Args:
        logp: nats, ``[K, ...]``.
        weights: > 0, ``[K]``.

    >>> product(torch.tensor([[0.5], [0.125]]).log(), torch.tensor([0.5, 0.5])).exp()
    tensor([0.2500])
    """
    total: Tensor = torch.tensordot(weights.to(logp), logp, dims=1)
    return total


def power_mean(logp: Tensor, weights: Tensor, exponent: float) -> Tensor:
    """Return ``1/r log sum_k w_k P_k^r``, the logarithm of a weighted power mean.

    Args:
        logp: nats, ``[K, ...]``.
        weights: > 0, ``[K]``.
        exponent: ``r``, not 0.

    >>> power_mean(torch.tensor([[0.5], [0.25]]).log(), torch.tensor([0.5, 0.5]), 1.0).exp()
    tensor([0.3750])
    """
    shape = [-1] + [1] * (logp.ndim - 1)
    total: Tensor = (exponent * logp + weights.to(logp).log().view(shape)).logsumexp(0)
    return total / exponent


def normalised(log_gamma: Tensor) -> Proposal:
    """Return the normalised proposal of unnormalised values, ``[rows, vocab]``, and the logarithm of their sum.

    >>> logq, growth, _ = normalised(torch.tensor([[0.5, 0.25]]).log())
    >>> [round(float(q), 3) for q in logq[0].exp()], round(float(growth.exp()), 3)
    ([0.667, 0.333], 0.75)
    """
    growth = log_gamma.logsumexp(-1)
    logq = log_gamma - torch.where(growth == -torch.inf, 0.0, growth)[:, None]
    return Proposal(logq, growth.double())
