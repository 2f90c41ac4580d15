"""Crossover: take single tokens from another model where the two models diverge most, within a budget.

Source: "Sparse but Critical", arXiv:2603.22446, section 3. The method asks which few tokens carry the effect of
a training run. The generating (primary) model and the other model share a tokenizer. At a position whose
Jensen-Shannon divergence exceeds a threshold, while budget is left, the next token is drawn from the other model.
In the paper's forward direction the base model generates and the trained model is ``other``; the reverse
direction swaps the two.

Every decision depends on the tokens before it only. Decisions at earlier positions are recomputed from both
models' own distributions, in one chunk of each model, for a row that was not seen before. A rewound or permuted
row therefore has the budget that its own tokens have used.

Departures: divergences are in bits, 0 to 1 (the paper's nats divided by ln 2). The paper publishes neither
threshold nor budget; the defaults here are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.cascade.crossover_budget import budget_left, switches_within_budget
from logitkit.processors.cascade.rules import replaced_rows
from logitkit.processors.cascade.uncertainty_scores import uncertainty
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import BoundSettings, CallSettings
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.divergences import divergence, js_bits
from logitkit.processors.engine.grown_rows import GrownRows
from logitkit.processors.engine.prefix_random import PrefixRandom, UniformSource
from logitkit.processors.engine.scores import at_width
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import is_same_model

CrossoverMeasure = Literal["js", "tv", "hellinger", "entropy", "random"]
PositionCount = Annotated[int, whole("number of positions of a row", ge=0)]
PositionShare = Annotated[float, number("share of the positions so far", ge=0, le=1)]


class Crossover(LogitsProcessor):
    """Draw the next token from another model at positions where a measure exceeds a threshold.

    Args:
        primary: stream of the generating model, or a function ``rows of tokens -> logits [rows, vocab]``.
        other: stream of the other model, likewise.
        prompt_width: number of tokens of a row before its position 0, where no call states it.
        threshold: a position switches when its measure is higher; at 1 no position switches.
        budget: number of positions of a row (``int``) or share of the positions so far (``float``, 0 to 1) that
            may switch; None sets no limit. See `budget_left`.
        measure: ``js``, the Jensen-Shannon divergence of both models in bits; ``tv`` or ``hellinger``, as in
            `logitkit.processors.engine.divergence`. Controls: ``entropy``, the uncertainty 1 - exp(-H) of the
            generating model; ``random``, a uniform random number.
        captured: logits of the generating model at the current step, at no extra forward; None: ``primary`` is
            read instead.
        random_numbers: the random numbers of ``random``, a function of the row's tokens.
        settings: the settings of the call, which state the length of the prompt; None: ``prompt_width`` counts.
        trace: receives the mean ``switched`` under ``crossover`` and, when it records, a note at every step with
            ``js``, ``score``, ``switched``, ``used``, ``own_token`` and ``other_token``.

    Raises:
        ParameterError: a parameter is outside its range.

    Source: arXiv:2603.22446, section 3; the module docstring lists the departures.

    >>> base, trained = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()  # JS is 0.53 bits
    >>> streams = {"primary": lambda rows: base, "other": lambda rows: trained}
    >>> Crossover(**streams, prompt_width=4, threshold=0.5)(torch.zeros(1, 4).long(), base).exp()
    tensor([[0.1000, 0.9000]])
    """

    @checked
    def __init__(
        self,
        *,
        primary: StreamLike,
        other: StreamLike,
        prompt_width: Annotated[int, Resource()] = 0,
        threshold: Annotated[
            float, number("switch above this value of the measure (js in bits); 1: never", ge=0, le=1, neutral=1)
        ] = 0.1,
        budget: Annotated[
            PositionCount | PositionShare | None,
            option("positions of a row that may switch: a number, or a share of the positions so far; None: no limit"),
        ] = None,
        measure: Annotated[
            CrossoverMeasure,
            option(
                "measure: js, tv or hellinger, the divergence of both models; controls: entropy of the generating "
                "model, random"
            ),
        ] = "js",
        captured: Annotated[CapturedOutputs | None, Resource()] = None,
        random_numbers: UniformSource = None,
        settings: BoundSettings = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.primary, self.other = as_stream(primary), as_stream(other)
        self._prompt_width, self._settings = prompt_width, settings
        self.threshold, self.budget, self.measure = threshold, budget, measure
        self.captured, self.random_numbers, self.trace = captured, random_numbers or PrefixRandom(), trace
        self._used = _UsedBudget(settings)

    @property
    def prompt_width(self) -> int:
        """Number of tokens of a row before its position 0; a decoder's prompt is among them."""
        return self._prompt_width if self._settings is None else self._settings.start

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        other: Annotated[str, option("the other model: a name passed to bind, a hub id, or a folder")],
        threshold: float,
        budget: float | None,
        measure: CrossoverMeasure,
        seed: Annotated[int, whole("seed of measure 'random'", ge=0)] = 0,
    ) -> Crossover:
        """Build the processor of one call; the other model reads the same prompt as the generating model.

        Raises:
            ModelError: the other model has another vocabulary.
        """
        model = binding.model_with_same_vocabulary(other, "crossover")
        if is_same_model(model, binding.model):
            reason = "the other model is the generating model"
            binding.no_effect["crossover"] = (reason, "name another model, or leave crossover out")
        elif budget is not None and budget == 0:
            binding.no_effect["crossover"] = ("the budget is 0", "give a larger budget, or leave crossover out")
        captured = CapturedOutputs(binding)
        return cls(
            primary=captured.reader,
            other=binding.reader(binding.own_prompts(), model, label=other),
            settings=binding.settings,
            threshold=threshold,
            budget=budget,
            measure=measure,
            captured=captured,
            random_numbers=PrefixRandom(seed=seed, prompts=binding.prompts),
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the other model in rows that switch, the scores elsewhere, ``[rows, vocab]``.

        Args:
            input_ids: tokens of the rows, ``[rows, length]``.
            scores: scores of the generating model, ``[rows, vocab]``.
        """
        if is_neutral(self.threshold, 1) or (self.budget is not None and is_neutral(self.budget, 0)):
            return scores
        position = input_ids.shape[1] - self.prompt_width
        used = self._used.before(input_ids, self.prompt_width)
        if used is None:
            used = switches_within_budget(self._earlier_requests(input_ids, position), self.budget).sum(-1)
        other = at_width(self.other(input_ids), scores.shape[-1])
        own = at_width(self._own_logits(input_ids, scores), scores.shape[-1])
        score = self._score(input_ids, own, other)
        switched = (score > self.threshold) & budget_left(used, position, self.budget)
        self._used.remember(input_ids, used + switched, self.prompt_width)
        self._record(own, other, score, switched, used)
        # On the CPU a read is free; elsewhere the host would wait for the device, which takes longer than the formula.
        if switched.device.type == "cpu" and not bool(switched.any()):
            return scores
        return replaced_rows(scores, other, switched)

    def _own_logits(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the generating model's own logits after each row, ``[rows, vocab]``."""
        return self.primary(input_ids) if self.captured is None else self.captured.logits(input_ids, scores)

    def _score(self, input_ids: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """Return the measure of each row, ``[rows]``, 0 to 1."""
        if self.measure == "js":
            return js_bits(own, other)
        if self.measure == "tv" or self.measure == "hellinger":
            return divergence(own, other, self.measure)
        if self.measure == "random":
            return self.random_numbers(input_ids).to(own.device)
        return uncertainty(own)

    def _earlier_requests(self, input_ids: Tensor, count: int) -> Tensor:
        """Return the earlier positions whose measure exceeds the threshold, bool ``[rows, count]``."""
        if not count:
            return torch.zeros((len(input_ids), 0), dtype=torch.bool, device=input_ids.device)
        before = input_ids[:, :-1]
        own, other = (stream.positions(before, count).unbind(1) for stream in (self.primary, self.other))
        width = max(own[0].shape[-1], other[0].shape[-1])
        lengths = range(input_ids.shape[1] - count, input_ids.shape[1])
        scores = [
            self._score(input_ids[:, :length], at_width(own_logits, width), at_width(other_logits, width))
            for length, own_logits, other_logits in zip(lengths, own, other, strict=True)
        ]
        return torch.stack(scores, dim=1).to(input_ids.device) > self.threshold

    def _record(self, own: Tensor, other: Tensor, score: Tensor, switched: Tensor, used: Tensor) -> None:
        """Add one step to the trace."""
        if self.trace is None:
            return
        self.trace.average("crossover", "switched", switched, intervention=True)
        if self.trace.recording:
            tokens = {"own_token": own.argmax(-1), "other_token": other.argmax(-1)}
            self.trace.note(js=js_bits(own, other), score=score, switched=switched, used=used, **tokens)


class _UsedBudget:
    """A cache of the number of switched positions, keyed by the tokens of the rows of the last call."""

    def __init__(self, settings: CallSettings | None) -> None:
        self._grown = None if settings is None else GrownRows(settings.prompts, self._forget)
        self._forget()

    def _forget(self) -> None:
        """Drop the numbers."""
        self._rows: Tensor | None = None
        self._used: Tensor | None = None
        self._start = 0  # where position 0 of the rows was

    def before(self, input_ids: Tensor, start: int) -> Tensor | None:
        """Return the number of switches before the last token of each row, ``[rows]``; None on a cache miss."""
        rows, used = self._rows, self._used
        if rows is None or used is None or start != self._start or rows.shape[1] != input_ids.shape[1] - 1:
            return None
        if self._grown is not None and self._grown.new_tokens(input_ids):
            return used
        if torch.equal(rows, input_ids[:, :-1]):
            return used
        match = (input_ids[:, None, :-1] == rows[None]).all(-1)  # [rows, cached rows]
        return used[match.int().argmax(-1)] if bool(match.any(-1).all()) else None

    def remember(self, input_ids: Tensor, used: Tensor, start: int) -> None:
        """Store the number of switches of each row, the decision after its last token included."""
        self._rows, self._used, self._start = input_ids, used, start
        if self._grown is not None:
            self._grown.note(input_ids)
