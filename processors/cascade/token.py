"""A cascade: the generating model is the small one, and a large one steps in where a rule says so.

Speculative cascades, arXiv:2405.19261, as a processor; the rules are in `logitkit.processors.cascade.rules`. It
shifts each row to the law pi of its rule, step by step: the quality of a speculative cascade and, under a
rule that looks at the small model alone, its cost too. The large model is a lazy stream: it is asked only
at steps where some row needs it, and reads what it missed in one chunk. Under a rule that needs the large
law at every step, `logitkit.processors.cascade.speculative` is the fast form.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade import verification
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.prefix_random import PrefixRandom, UniformSource
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace

Rule = Literal["chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "js", "random"]


class Cascade(LogitsProcessor):
    """Defer to a large model where the rule does not trust the small one.

    Args:
        large: logits of the large model, ``rows of tokens -> [rows, vocab]``.
        chance: numbers for ``random``, a control: a row stays small where its number is below alpha.
        sizes: parameters of the small and the large model, for the average that a token activates.
        trace: gets the means ``cascade deferral`` (probability that the large model gives the token),
            ``cascade acceptance`` (of a small draft: 1 - TV(pi, q)), ``cascade asked`` (rows that needed the
            large model; a batch is read together) and ``cascade activated parameters`` (small + asked x large).
    """

    @checked
    def __init__(
        self,
        *,
        large: StreamLike,
        rule: Annotated[Rule, option("how the small model's word is judged")] = "chow",
        alpha: Annotated[float, number("trust in the small model", ge=0, le=1, neutral=1)] = 0.5,
        temperature: Annotated[float, number("of the laws drawn from, not of those judged; 0: greedy", ge=0)] = 1.0,
        chance: UniformSource = None,
        sizes: Annotated[tuple[int, int] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.large, self.rule, self.alpha, self.temperature = as_stream(large), rule, alpha, temperature
        self.chance, self.sizes, self.trace = chance or PrefixRandom(), sizes, trace

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        large: Annotated[str, option("the large model: a name passed to bind, a hub id, or a folder")],
        seed: Annotated[int, whole("of rule 'random'", ge=0)] = 0,
        **strength: Any,
    ) -> Cascade:
        """Read along with the large model under the same prompt."""
        model = binding.model_with_same_vocabulary(large, "cascade")
        return cls(
            large=binding.reader(binding.own_prompts(), model, label=large),
            chance=PrefixRandom(seed=seed, prompts=binding.prompts),
            sizes=sizes_of(binding.model, model),
            trace=binding.trace,
            **strength,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores where the small model is trusted, else log pi, ``[rows, vocab]``."""
        if is_neutral(self.alpha, 1) and is_neutral(self.temperature, 1):
            self._tell(torch.zeros(len(scores)), torch.ones(len(scores)), torch.ones(len(scores)).bool())
            return scores
        small = log_probabilities(scores)
        q = deferral.tempered(small, self.temperature)
        untouched = scores if is_neutral(self.temperature, 1) else q
        settled = self._settled(input_ids, small, q)
        if bool(settled.all()):
            self._tell(torch.zeros_like(q[:, 0]), torch.ones_like(q[:, 0]), settled)
            return untouched
        large = deferral.restricted(fit(self.large(input_ids), scores.shape[-1]), scores)
        p = deferral.tempered(large, self.temperature)
        if self.rule == "random":
            stands = settled[:, None].expand_as(q)
        else:
            stands = deferral.trusted(self.rule, small, large, alpha=self.alpha, drawn_small=q, drawn_large=p)
        pi = deferral.mixture(q, p, stands)
        self._tell(deferral.deferred(q, stands), verification.acceptance_rate(q, pi), settled)
        return torch.where(stands.all(-1, keepdim=True), untouched, pi)

    def _settled(self, input_ids: Tensor, small: Tensor, drawn: Tensor) -> Tensor:
        """Say which rows need no large model, ``[rows]``."""
        if self.rule == "random":
            return self.chance(input_ids).to(small.device) < self.alpha
        return deferral.settled(self.rule, small, alpha=self.alpha, drawn_small=drawn)

    def _tell(self, deferred: Tensor, accepted: Tensor, settled: Tensor) -> None:
        """Note the step."""
        if self.trace is None:
            return
        asked = (~settled).float()
        self.trace.note(deferred=deferred, accepted=accepted)
        self.trace.average("cascade", "deferral", deferred, intervention=True)
        self.trace.average("cascade", "acceptance", accepted)
        self.trace.average("cascade", "asked", asked)
        if self.sizes is not None:
            activated = self.sizes[0] + asked.double() * self.sizes[1]
            self.trace.average("cascade", "activated parameters", activated)


def sizes_of(small: Any, large: Any) -> tuple[int, int] | None:
    """Parameters of two models, None where one cannot say."""
    if not all(hasattr(model, "num_parameters") for model in (small, large)):
        return None
    return int(small.num_parameters()), int(large.num_parameters())
