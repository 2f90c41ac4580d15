"""Crossover: hand single tokens to another model, where the two disagree most, within a budget.

"Sparse but critical", arXiv:2603.22446, section 3: which few tokens carry what training changed? Primary
and other model share a tokenizer; at a position whose Jensen-Shannon divergence exceeds a threshold, while
budget is left, the other model's law takes the place of the primary's. Forward: the base model generates,
the trained one is ``other``. Reverse: the trained model generates, the base is ``other``.

Every decision is a function of the tokens before it. Those of earlier positions are taken on the models'
own laws, so that a rewound or permuted row has spent what its own prefix spent; a fresh instance computes
them from scratch in one chunk of each model. Departures: divergence in bits, 0 to 1 (the paper's nats over
ln 2); threshold and budget are not published, so they are yours to choose.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade.uncertainty import uncertainty
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.prefix_random import PrefixRandom, UniformSource
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace

Measure = Literal["js", "entropy", "random"]
Count = Annotated[int, whole("", ge=0)]
Share = Annotated[float, number("", ge=0, le=1)]


def within(excess: Tensor, budget: float | None) -> Tensor:
    """Say at which positions to switch, and never over the budget.

    Args:
        excess: whether each position asks for it, bool ``[rows, positions]``, from the first after the prompt.
        budget: a whole number: so many positions of a row. A fraction: at position t (from 0) less than
            budget x (t + 1) may be used before. None: no limit.

    Returns:
        bool ``[rows, positions]``.
    """
    if budget is None:
        return excess
    if isinstance(budget, int):
        return excess & (excess.long().cumsum(-1) <= budget)
    used = torch.zeros_like(excess[:, 0], dtype=torch.long) if excess.shape[1] else None
    switched = torch.zeros_like(excess)
    for place in range(excess.shape[1]):
        assert used is not None
        switched[:, place] = excess[:, place] & (used < _allowed(budget, place))
        used = used + switched[:, place].long()
    return switched


def _allowed(fraction: float, place: int) -> float:
    """What a running fraction allows to be used before a position; rounding must not allow one more."""
    return fraction * (place + 1) - 1e-9


class Crossover(LogitsProcessor):
    """Switch to the other model at positions that ask for it.

    Args:
        primary: logits of the generating model after any prefix, as a Reader gives them.
        other: of the other model.
        prompt: tokens before position 0 of a row.
        overheard: the generating model's logits without a forward of ours; None: the primary reader reads.
        chance: numbers of the control ``random``.
        trace: gets the mean ``crossover switched`` and, where it records, a note at every step: ``js``,
            ``score``, ``switched``, ``used``, ``own_token``, ``other_token``.
    """

    @checked
    def __init__(
        self,
        *,
        primary: StreamLike,
        other: StreamLike,
        prompt: Annotated[int, Resource()],
        threshold: Annotated[
            float, number("switch where the score is above it: js in bits; 1 never", ge=0, le=1, neutral=1)
        ] = 0.1,
        budget: Annotated[
            Count | Share | None, option("positions a row, or the share of positions so far; None: no limit")
        ] = None,
        measure: Annotated[Measure, option("js; controls: entropy, 1 - exp(-H) of the primary; random")] = "js",
        overheard: Annotated[CapturedOutputs | None, Resource()] = None,
        chance: UniformSource = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.primary, self.other, self.prompt = as_stream(primary), as_stream(other), prompt
        self.threshold, self.budget, self.measure = threshold, budget, measure
        self.overheard, self.chance, self.trace = overheard, chance or PrefixRandom(), trace
        self._spent = _Spent()

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        other: Annotated[str, option("the other model: a name passed to bind, a hub id, or a folder")],
        seed: Annotated[int, whole("of measure 'random'", ge=0)] = 0,
        **strength: Any,
    ) -> Crossover:
        """Read along with the other model, and overhear the generating one."""
        model = binding.model_with_same_vocabulary(other, "crossover")
        overheard = CapturedOutputs(binding)
        return cls(
            primary=overheard.reader,
            other=binding.reader(binding.own_prompts(), model, label=other),
            prompt=1 if binding.prompts.in_encoder else binding.prompts.width,  # a decoder's rows begin with its start
            overheard=overheard,
            chance=PrefixRandom(seed=seed, prompts=binding.prompts),
            trace=binding.trace,
            **strength,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the other model's log-probabilities in rows that switch, the scores in the rest, ``[rows, vocab]``."""
        if is_neutral(self.threshold, 1) or (self.budget is not None and is_neutral(self.budget, 0)):
            return scores
        place = input_ids.shape[1] - self.prompt
        used = self._spent.before(input_ids)
        if used is None:
            used = within(self._excess(input_ids, place), self.budget).sum(-1)
        other = fit(self.other(input_ids), scores.shape[-1])
        own = fit(self._own(input_ids, scores), scores.shape[-1])
        score = self._score(input_ids, own, other)
        switched = (score > self.threshold) & self._left(used, place)
        self._spent.note(input_ids, used + switched.long())
        self._tell(own, other, score, switched, used)
        if not bool(switched.any()):
            return scores
        return torch.where(switched[:, None], deferral.restricted(other, scores), scores)

    def _own(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The generating model's own logits after each row."""
        return self.primary(input_ids) if self.overheard is None else self.overheard.logits(input_ids, scores)

    def _left(self, used: Tensor, place: int) -> Tensor:
        """Say whether budget is left at a position, ``[rows]``."""
        if self.budget is None:
            return torch.ones_like(used, dtype=torch.bool)
        return used < (self.budget if isinstance(self.budget, int) else _allowed(self.budget, place))

    def _score(self, input_ids: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """How much each row asks for the other model, ``[rows]``, 0 to 1."""
        if self.measure == "js":
            return js_bits(own, other)
        if self.measure == "random":
            return self.chance(input_ids).to(own.device)
        return uncertainty(own)

    def _excess(self, input_ids: Tensor, count: int) -> Tensor:
        """Whether each earlier position asked for the other model, bool ``[rows, count]``, from scratch."""
        if not count:
            return torch.zeros((len(input_ids), 0), dtype=torch.bool, device=input_ids.device)
        before = input_ids[:, :-1]
        own, other = (reader.positions(before, count).unbind(1) for reader in (self.primary, self.other))
        width = max(own[0].shape[-1], other[0].shape[-1])
        lengths = range(input_ids.shape[1] - count, input_ids.shape[1])
        scores = [
            self._score(input_ids[:, :length], fit(mine, width), fit(theirs, width))
            for length, mine, theirs in zip(lengths, own, other, strict=True)
        ]
        return torch.stack(scores, dim=1).to(input_ids.device) > self.threshold

    def _tell(self, own: Tensor, other: Tensor, score: Tensor, switched: Tensor, used: Tensor) -> None:
        """Note the step."""
        if self.trace is None:
            return
        self.trace.average("crossover", "switched", switched.float(), intervention=True)
        if self.trace.recording:
            tokens = {"own_token": own.argmax(-1), "other_token": other.argmax(-1)}
            self.trace.note(js=js_bits(own, other), score=score, switched=switched, used=used, **tokens)


class _Spent:
    """How much of the budget the rows last seen have used: a cache keyed by their tokens."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._used: Tensor | None = None

    def before(self, input_ids: Tensor) -> Tensor | None:
        """What each row's prefix without its last token had used by then, ``[rows]``; None: some row is unknown."""
        rows, used = self._rows, self._used
        if rows is None or used is None or rows.shape[1] != input_ids.shape[1] - 1:
            return None
        if torch.equal(rows, input_ids[:, :-1]):
            return used
        match = (input_ids[:, None, :-1] == rows[None]).all(-1)  # [rows, known]
        return used[match.int().argmax(-1)] if bool(match.any(-1).all()) else None

    def note(self, input_ids: Tensor, used: Tensor) -> None:
        """Keep what these rows have used, the decision at their end included."""
        self._rows, self._used = input_ids, used
