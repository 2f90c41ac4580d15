"""Sequential Monte Carlo over the law of a chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from logitkit.errors import ModeError, ParameterError, ScoresError
from logitkit.params import Resource, checked, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.resampling import effective_size, systematic
from logitkit.processors.searches.rows import Rows
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search
from logitkit.processors.searches.target_choice import TargetChoice
from logitkit.processors.searches.targets import Power, Proposal, Target

TargetName = Literal["power", "product", "min", "power_mean", "constraint", "log_weight"]
RESAMPLING = -1  # in place of a particle's number, in the random numbers of resampling
Models = Annotated[
    list[str] | None,
    option("the other models of product, min and power_mean: names passed to bind, hub ids or folders"),
]
Weights = Annotated[
    list[float] | None, option("weight of the generating model and of each of the models; None: equal, with sum 1")
]


class SMC(Search):
    """Sample whole sequences from a target distribution with weighted particles (sequential Monte Carlo).

    Each prompt has ``particles`` rows. A step weighs every row by how well its tokens so far fit the target, draws the
    next token from the proposal of the target, and, where few rows carry most of the weight, replaces the rows by a
    systematic sample of them. All particles of all prompts are rows of one forward.

    The returned sequences follow the target: all particles with their weights where ``num_return_sequences`` is
    ``particles``, else a systematic sample of them with equal weights. At ``max_new_tokens`` the target is that of the
    unfinished text. With p the law of the steps before the search, the targets are:

    - ``power``: ``p(x)^alpha``.
    - ``product``, ``min``, ``power_mean``: a mean of the probabilities of ``x`` under p and under other models.
    - ``constraint``: p given that the text ends and keeps the constraint steps of the chain, or a predicate of yours.
    - ``log_weight``: ``p(x) exp(w(x))`` with a function of yours.

    Args:
        particles: rows of each prompt.
        target: name of the target.
        alpha: exponent of the target ``power``.
        ess: effective sample size, as a share of the particles, below which the particles are resampled.
        make_target: makes a new target for each run; needed for any target but ``power``.
        taken: the constraint steps of the chain, which the target carries out.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids = tiny_tokenizer()("ab", return_tensors="pt").input_ids
        >>> settings = {"do_sample": True, "top_k": 0, "max_new_tokens": 5, "pad_token_id": 0}
        >>> search = SMC(particles=4, alpha=3.0)
        >>> tiny_model().generate(ids, custom_generate=search, num_return_sequences=4, **settings).shape[0]
        4
    """

    name: ClassVar[str] = "smc"
    drops: ClassVar[bool] = True
    fuses: ClassVar[bool] = True
    order = ("particles", "target", "alpha")

    @checked
    def __init__(
        self,
        *,
        particles: Annotated[int, whole("rows of each prompt", ge=1)] = 64,
        target: Annotated[TargetName, option("the distribution of the returned sequences")] = "power",
        alpha: Annotated[float, number("exponent of target 'power'; 1 is the law of the steps", gt=0)] = 2.0,
        ess: Annotated[
            float, number("resample below this share of equally weighted particles; 0: never", ge=0, le=1)
        ] = 0.5,
        make_target: Annotated[Callable[[], Target] | None, Resource()] = None,
        taken: Annotated[Sequence[Any], Resource()] = (),
    ) -> None:
        if target != "power" and make_target is None:
            raise ParameterError("SMC", "target", "'power' without make_target", target, "bind it in a chain")
        self.particles, self.target, self.alpha, self.ess = particles, target, alpha, ess
        self.taken = tuple(taken)
        self._make_target = make_target or (lambda: Power(alpha))

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        particles: int,
        target: TargetName,
        alpha: float,
        models: Models = None,
        weights: Weights = None,
        exponent: Annotated[float, number("exponent of target 'power_mean', not 0")] = -1.0,
        log_weight: Annotated[
            str | None, option("name under which bind gets the function of target 'log_weight'")
        ] = None,
        predicate: Annotated[
            str | None, option("name under which bind gets the function of target 'constraint': which rows are viable")
        ] = None,
        ess: float,
    ) -> SMC:
        """Build the search with its target.

        Raises:
            ParameterError: parameters of another target, or no models, function or constraint for the target.
            ModelError: a model with another tokenizer.
        """
        make_target, taken = TargetChoice(target, models, weights, exponent, log_weight, predicate).bound(binding)
        settings: dict[str, Any] = {"alpha": alpha, "ess": ess, "make_target": make_target, "taken": taken}
        return cls(particles=particles, target=target, **settings)

    def sequences(self, wanted: int) -> int:
        """Return the number of particles."""
        return self.particles

    def check(self, run: SearchRun) -> None:
        """Refuse greedy decoding of several particles, which would all be equal.

        Raises:
            ModeError: as said.
        """
        if not run.sampling and self.particles > 1:
            raise ModeError(
                f"smc: do_sample must be True with {self.particles} particles, which would all be equal; leave "
                "do_sample out, or set particles=1"
            )

    def search(self, run: SearchRun) -> Found:
        """Return all particles with their weights."""
        return _Particles(self, run, self._make_target()).run_all()


class _Particles:
    """The particles of one run.

    Args:
        search: the search.
        run: the run.
        target: the target; it is used for this run alone.

    Attributes:
        log_weights: unnormalised log-weights since the last resampling, float64 ``[prompts, particles]``.
        log_z: logarithm of the estimate of the normalising constant up to the last resampling, ``[prompts]``.
    """

    def __init__(self, search: SMC, run: SearchRun, target: Target) -> None:
        self.search, self.run, self.target = search, run, target
        self.rows: Rows = run.rows(search.particles)
        device = run.ids.device
        self.particle = torch.arange(search.particles, device=device).repeat(run.prompts)
        self.log_weights = torch.zeros(run.prompts, search.particles, dtype=torch.float64, device=device)
        self.log_z = torch.zeros(run.prompts, dtype=torch.float64, device=device)
        self.sizes: list[list[float]] = []
        self.resamplings = [0] * run.prompts

    def run_all(self) -> Found:
        """Decode until every particle has ended, and return them."""
        rows = self.rows
        for step in range(self.run.max_new_tokens):
            proposal = self.target.propose(rows)
            growth = torch.where(rows.finished, 0.0, proposal.log_growth)
            self._add(growth.masked_fill(rows.lost, -torch.inf))
            self._refuse_weightless("within the first {} new tokens", step + 1)
            rows.append(self._drawn(self._resampled(proposal, step), step))
            grown = self.target.drawn(rows)
            if grown is not None:
                self._add(grown)
            if rows.done:
                break
        final = self.target.final(rows)
        if final is not None:
            self._add(final)
        self._refuse_weightless("of at most {} new tokens", self.run.max_new_tokens)
        total = self.log_weights.logsumexp(-1)
        self.run.cost.notes |= {"ess": self.sizes, "resamplings": self.resamplings}
        return Found.of(
            rows,
            log_weights=self.log_weights - total[:, None],
            log_z=self.log_z + total - math.log(self.search.particles),
        )

    def _add(self, growth: Tensor) -> None:
        """Add the growth of each row to its log-weight."""
        self.log_weights = self.log_weights + growth.view_as(self.log_weights)

    def _refuse_weightless(self, where: str, tokens: int) -> None:
        """Refuse a prompt whose particles all have weight 0.

        Raises:
            ScoresError: as said.
        """
        lost = (self.log_weights == -torch.inf).all(-1).nonzero().flatten().tolist()
        if lost:
            raise ScoresError(
                f"smc: a particle of prompt {lost[0]} must keep a weight above 0, got none that the target allows "
                f"{where.format(tokens)}; raise particles or max_new_tokens, or loosen the target"
            )

    def _resampled(self, proposal: Proposal, step: int) -> Proposal:
        """Resample the particles of the prompts that need it; return the proposal of the particles that remain."""
        count = self.search.particles
        sizes = effective_size(self.log_weights)
        self.sizes.append(sizes.tolist())
        needed = sizes < self.search.ess * count * (1 - 1e-9)  # equal weights have size ``count`` up to rounding
        if not bool(needed.any()):
            return proposal
        numbers = uniform(self.run.seeds, RESAMPLING, step)
        index = systematic(self.log_weights, numbers, count)
        same = torch.arange(count, device=index.device)
        index = torch.where(needed[:, None], index, same)
        mean = self.log_weights.logsumexp(-1) - math.log(count)
        self.log_z = torch.where(needed, self.log_z + mean, self.log_z)
        self.log_weights = torch.where(needed[:, None], 0.0, self.log_weights)
        self.resamplings = [count + each for count, each in zip(self.resamplings, needed.tolist(), strict=True)]
        flat = (index + count * torch.arange(len(index), device=index.device)[:, None]).flatten()
        self.rows.select(flat)
        self.target.select(flat)
        return proposal.select(flat)

    def _drawn(self, proposal: Proposal, step: int) -> Tensor:
        """Return one token of each row; rows of weight 0, which no token continues, follow the law."""
        if proposal.tokens is not None:
            return proposal.tokens
        logq = proposal.logq
        stuck = logq.amax(-1) == -torch.inf
        if bool(stuck.any()):
            logq = torch.where(stuck[:, None], self.rows.law().to(logq.dtype), logq)
        if not self.run.sampling:
            return logq.argmax(-1)
        return draw(logq, uniform(self.run.seeds[self.rows.prompt], self.particle, step))
