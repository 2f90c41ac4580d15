"""A token-level cascade as a logits processor: the generating model is the small one.

Source: speculative cascades, arXiv:2405.19261; the rules are in `logitkit.processors.cascade.rules`.
At each step the processor replaces the scores of a row by the cascade distribution ``pi``. The large model runs
only at steps where some row needs it, and then reads all tokens since its last forward in one chunk.
A rule that needs the large model at every step saves no forwards here;
`logitkit.processors.cascade.SpeculativeCascade` checks several drafted tokens in one forward.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.cascade import rules
from logitkit.processors.cascade.activated_parameters import ParameterCounts, parameter_counts
from logitkit.processors.cascade.rules import TokenRule
from logitkit.processors.cascade.verification import acceptance_rate
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.prefix_random import PrefixRandom, UniformSource
from logitkit.processors.engine.scores import at_width
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import is_same_model

DeferralRule = Literal[TokenRule, "random"]


class Cascade(LogitsProcessor):
    """Sample from a large model where a deferral rule rejects the small model.

    A token that the scores make impossible is impossible for the large model too, since constraints mask tokens so.
    Warpers mask tokens in the same way: put them behind a cascade, where they act on the mixture of both models. A
    chain refuses warpers before a cascade, and `generate` puts its own behind.

    Args:
        large: stream of the large model, or a function ``rows of tokens -> logits [rows, vocab]``.
        rule: deferral rule, see `logitkit.processors.cascade.rules`. ``random`` is a control: a row keeps the small
            model when its random number is below ``alpha``.
        alpha: tolerance for the small model, 0 to 1; 1 keeps the small model everywhere.
        temperature: temperature of the sampling distributions; the rule compares the untempered ones. 0 is greedy.
        random_numbers: the random numbers of ``random``, a function of the row's tokens.
        parameter_counts: numbers of parameters of both models, for the average number that a token activates.
        trace: receives, under ``cascade``, the means ``deferral`` (probability that the large model supplies the
            token), ``acceptance`` (probability that a draft of the small model is accepted, 1 - TV(pi, q)),
            ``large needed`` (share of rows that needed the large model; rows of a batch are read together) and
            ``activated parameters``.

    Raises:
        ParameterError: a parameter is outside its range.

    Source: arXiv:2405.19261, section 4. Departures: the rules ``js`` and ``random`` are additions.

    >>> large = torch.tensor([[0.2, 0.8]]).log()
    >>> cascade = Cascade(large=lambda rows: large, rule="token_v3", alpha=0.5)
    >>> cascade(torch.zeros(1, 3).long(), torch.tensor([[0.6, 0.4]]).log()).exp()
    tensor([[0.1200, 0.8800]])
    """

    @checked
    def __init__(
        self,
        *,
        large: StreamLike,
        rule: Annotated[DeferralRule, option("deferral rule: when the small model's token is kept")] = "chow",
        alpha: Annotated[
            float, number("tolerance for the small model; 1: keep the small model", ge=0, le=1, neutral=1)
        ] = 0.5,
        temperature: Annotated[
            float, number("sampling temperature of both models, ignored by the rule; 0 is greedy", ge=0)
        ] = 1.0,
        random_numbers: UniformSource = None,
        parameter_counts: Annotated[ParameterCounts | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.large, self.rule, self.alpha, self.temperature = as_stream(large), rule, alpha, temperature
        self.random_numbers = random_numbers or PrefixRandom()
        self.parameter_counts, self.trace = parameter_counts, trace

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        large: Annotated[str, option("the large model: a name passed to bind, a hub id, or a folder")],
        rule: DeferralRule,
        alpha: float,
        temperature: float,
        seed: Annotated[int, whole("seed of rule 'random'", ge=0)] = 0,
    ) -> Cascade:
        """Build the processor of one call; the large model reads the same prompt as the generating model.

        Raises:
            ModelError: the large model has another vocabulary.
        """
        model = binding.model_with_same_vocabulary(large, "cascade")
        if is_same_model(model, binding.model) and is_neutral(temperature, 1):
            reason = "the large model is the generating model"
            binding.no_effect["cascade"] = (reason, "name another model, or leave cascade out")
        return cls(
            large=binding.reader(binding.own_prompts(), model, label=large),
            rule=rule,
            alpha=alpha,
            temperature=temperature,
            random_numbers=PrefixRandom(seed=seed, prompts=binding.prompts),
            parameter_counts=parameter_counts(binding.model, model),
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log pi, ``[rows, vocab]``, in the dtype of the scores; rows that accept every token keep their scores.

        Args:
            input_ids: tokens of the rows, ``[rows, length]``.
            scores: scores of the small model, ``[rows, vocab]``.
        """
        if is_neutral(self.alpha, 1) and is_neutral(self.temperature, 1):
            self._record(torch.zeros(len(scores)), torch.ones(len(scores)), torch.ones(len(scores)).bool())
            return scores
        small = log_probabilities(scores)
        q = rules.tempered(small, self.temperature)
        unchanged = scores if is_neutral(self.temperature, 1) else q
        decided = self._decided_without_large(input_ids, small, q)
        always = self.rule != "random" and rules.always_needs_large(self.rule)
        logits = self.large(input_ids) if always else self.large.where(~decided, input_ids)
        if logits is None:
            self._record(torch.zeros_like(q[:, 0]), torch.ones_like(q[:, 0]), decided)
            return unchanged.to(scores.dtype)
        large = rules.restricted_to_support(at_width(logits, scores.shape[-1]), scores)
        p = rules.tempered(large, self.temperature)
        accepted = self._accepted(small, large, q, p, decided)
        resampled = rules.resampled_mass(q, accepted)
        pi = rules.mixed_rows(q, p, accepted, resampled)
        self._record(resampled, acceptance_rate(q, pi), decided)
        return torch.where(accepted.all(-1, keepdim=True), unchanged, pi).to(scores.dtype)

    def _decided_without_large(self, input_ids: Tensor, small: Tensor, q: Tensor) -> Tensor:
        """Return the rows that need no large model, bool ``[rows]``."""
        if self.rule == "random":
            return self.random_numbers(input_ids).to(small.device) < self.alpha
        return rules.decided_without_large(self.rule, small, alpha=self.alpha, sampling_small=q)

    def _accepted(self, small: Tensor, large: Tensor, q: Tensor, p: Tensor, decided: Tensor) -> Tensor:
        """Return the accepted set, bool ``[rows, vocab]``."""
        if self.rule == "random":
            return decided[:, None].expand_as(q)
        return rules.accepted_tokens(self.rule, small, large, alpha=self.alpha, sampling_small=q, sampling_large=p)

    def _record(self, resampled: Tensor, acceptance: Tensor, decided: Tensor) -> None:
        """Add one step to the trace; all arguments are ``[rows]``."""
        if self.trace is None:
            return
        self.trace.note(resampled_mass=resampled, acceptance=acceptance)
        values = {"deferral": resampled, "acceptance": acceptance, "large needed": (~decided).to(acceptance)}
        self.trace.averages("cascade", values, interventions=["deferral"])
        if self.parameter_counts is not None:
            self.parameter_counts.derive_activated(self.trace, "cascade", "large needed")
