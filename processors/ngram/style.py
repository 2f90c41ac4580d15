"""N-gram style injection, arXiv:2601.16224, with the sign of the published rule corrected.

The formulas are in `logitkit.processors.ngram.formulas`. This module gathers the evidence for all rows of a batch and
adds it to the scores. Departures from the source, under every rule except ``literal``: the ordinary tokens are shifted
together, so that special tokens such as the end of the text keep their probability, and a normalised row stays
normalised.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, is_neutral, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.padding import BoundPrompts, without_padding
from logitkit.processors.engine.scores import with_infinite_masks
from logitkit.processors.ngram.evidence import Evidence, note_without_ngrams
from logitkit.processors.ngram.exponential_tilting import ExponentialTilting, Places, SharedEvidence
from logitkit.processors.ngram.formulas import StyleRule
from logitkit.processors.ngram.mixture import Mixture, mixture_of_orders
from logitkit.processors.ngram.nltk_importer import from_nltk, is_nltk_model
from logitkit.processors.ngram.parameters import (
    CapBits,
    Groups,
    Once,
    OptionalTrace,
    OrderWeights,
    Plausible,
    PseudoCount,
    TargetJS,
    Top,
    Weight,
    checked_order_weights,
)
from logitkit.processors.ngram.repetition import repeating_tokens
from logitkit.processors.ngram.table import NgramTable
from logitkit.processors.ngram.target_divergence import weights_for_divergence


class NgramStyle(LogitsProcessor):
    """Raise the tokens that a corpus would continue with, by the evidence of its n-grams.

    Args:
        table: the style, counted with the tokenizer of the model.
        weight: -1 to 1; at 0 the scores are returned unchanged; below 0 the style is avoided.
        rule: ``lift``: n-grams of the table gain; ``literal``: they lose, as published; ``pmi``: n-grams that are
            more probable than in the background gain; ``mixture``: a mixture of probabilities.
        order_weights: one for each order, >= 0; None: in the proportion 1 : 3 : 6 : 10 : 15, with sum 1.
        k: pseudo-count of ``lift`` and ``literal``, above 0; under ``literal``, a table with add-k keeps its own.
        top: number of most frequent tokens after each context that have evidence; None: all, under ``literal`` 512.
        cap_bits: largest move of a score, in bits; None: unlimited.
        plausible: 0 to 1; only tokens with at least this share of the largest probability move.
        once: whether n-grams of the longest order give no evidence once the continuation contains them.
        target_js: Jensen-Shannon divergence in bits, between 0 and 1, by which each row moves, with at most the full
            weight; None: the full weight.
        background: table of neutral text, for ``pmi`` only. A token to which it gives less than
            ``1 / (tokens + size)`` counts as having this probability, with ``tokens`` and ids of the background; in a
            background without counts, less than the probability of the unknown word.
        prompts: the bound prompts, whose left padding is not part of any context; None: no row is padded.
        groups: maps rows of tokens to the group of the table in which each is looked up, ``[rows]``; None: group 0.
        trace: receives the weight of each row where ``target_js`` is set.

    Raises:
        ParameterError: a parameter outside its range, or a combination that is not allowed.

    Example:
        >>> table = NgramTable.count([[1, 2, 1, 2, 1, 3]], size=4, orders=2)
        >>> style = NgramStyle(table=table, weight=1.0, k=1.0, order_weights=[0.0, 1.0])
        >>> style(torch.tensor([[1]]), torch.zeros(1, 4)).softmax(-1)  # odds 3 : 2 for two and one occurrences
        tensor([[0.1429, 0.1429, 0.4286, 0.2857]])
    """

    @checked
    def __init__(  # Over 40 lines: every parameter of the chain is a parameter of the constructor
        self,
        *,
        table: Annotated[NgramTable, Resource()],
        weight: Weight = 0.2,
        rule: Annotated[
            StyleRule,
            option(
                "lift: n-grams of the table gain; literal: the published rule, n-grams of the table lose; "
                "pmi: evidence relative to a background; mixture: mix probabilities"
            ),
        ] = "lift",
        order_weights: OrderWeights = None,
        k: PseudoCount = 1e-3,
        top: Top = None,
        cap_bits: CapBits = None,
        plausible: Plausible = 0.0,
        once: Once = False,
        target_js: TargetJS = None,
        background: Annotated[NgramTable | None, Resource()] = None,
        prompts: BoundPrompts = None,
        groups: Groups = None,
        trace: OptionalTrace = None,
    ) -> None:
        if (rule == "pmi") != (background is not None):
            must = "given for rule 'pmi'" if rule == "pmi" else "None, because only rule 'pmi' uses one"
            raise ParameterError("ngram_style", "background", must, background)
        if rule == "mixture" and weight < 0:
            raise ParameterError("ngram_style", "weight", "from 0 to 1 for rule 'mixture'", weight)
        if rule == "mixture" and top is not None:
            raise ParameterError("ngram_style", "top", "None for rule 'mixture'", top)
        if table.base > table.size and table.groups > 1:
            raise ParameterError("ngram_style", "table", "of one corpus, or without words outside the tokenizer", table)
        self.table, self.weight, self.rule = table, weight, rule
        self.order_weights = checked_order_weights(order_weights, table.orders)
        self.cap = math.inf if cap_bits is None else cap_bits * math.log(2)
        self.plausible, self.once, self.target_js = plausible, once, target_js
        self.prompts, self.groups, self.trace = prompts, groups, trace
        self.evidence = None if rule == "mixture" else Evidence(table, rule, k=k, top=top, background=background)
        self._shared: dict[tuple[int, torch.device], SharedEvidence] = {}
        self._zero_buffer = torch.zeros(0)

    @classmethod
    def bind(  # Over 40 lines: every parameter of the chain is a parameter of bind
        cls,
        binding: Binding,
        *,
        table: Annotated[str, option("the table: a file, or a name passed to bind")],
        weight: float,
        rule: StyleRule,
        order_weights: list[float] | None,
        k: float,
        top: int | None,
        cap_bits: float | None,
        plausible: float,
        once: bool,
        target_js: float | None,
        background: Annotated[
            str | None, option("the table that rule pmi compares with: a file, or a name passed to bind")
        ] = None,
    ) -> NgramStyle:
        """Load the tables and check that they were counted with the model's tokenizer.

        Raises:
            ModelError: a table of another tokenizer, or a resource that is no table.
            FileFormatError: no such file, or a truncated file or another format.
        """
        loaded = _load(binding, table)
        if rule != "mixture":
            note_without_ngrams(binding, "ngram_style", loaded, order_weights, "count a longer text")
        return cls(
            table=loaded,
            weight=weight,
            rule=rule,
            order_weights=order_weights,
            k=k,
            top=top,
            cap_bits=cap_bits,
            plausible=plausible,
            once=once,
            target_js=target_js,
            background=None if background is None else _load(binding, background),
            prompts=binding.prompts,
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the style raised, ``[rows, vocab]``, in the dtype of the scores."""
        if is_neutral(self.weight, 0):
            return scores
        # A mask of another kind stays far below all other scores when evidence is added to it.
        dtype, scores = scores.dtype, (with_infinite_masks(scores) if self.evidence is None else scores).float()
        self._move_to(scores.device)
        ids = without_padding(self.prompts, input_ids, self.table.base) if self._sees_padding(input_ids) else input_ids
        contexts = self.table.contexts(ids, None if self.groups is None else self.groups(input_ids))
        step = (self._mixture if self.evidence is None else self._tilting)(ids, contexts, scores)
        if self.target_js is None:
            return step.moved().to(dtype)
        row_weights = weights_for_divergence(self.target_js, self.weight, step.divergence(), scores)
        if self.trace is not None:
            self.trace.note(weight=row_weights[:, 0])
        return step.moved(row_weights).to(dtype)

    def _tilting(self, ids: Tensor, contexts: Tensor, scores: Tensor) -> ExponentialTilting:
        """Gather the evidence of all rows.

        A token that follows a context also follows the shorter ones, so the places of the lowest order include all.
        """
        assert self.evidence is not None
        width, shared = scores.shape[1], self._shared_evidence(scores.shape[1], scores.device)
        lowest = 1 if self.groups is not None else 2  # in a table of one corpus all rows share single-token evidence
        buffer, bounds = self._zeros(scores), self.table.bounds(contexts)
        evidence, places = buffer[:-1].view(scores.shape), None
        for order in range(lowest, self.table.orders + 1):
            followers, values = self.evidence.after(order, bounds[:, order - 1], width)
            evidence.scatter_add_(1, followers.tokens, values * self.order_weights[order - 1])
            places = followers if order == lowest else places
        if self.once:
            buffer.index_fill_(0, self._repeats(ids, width).flatten(), 0.0)
        step: dict[str, Any] = {"weight": self.weight, "cap": self.cap, "keep": self.rule != "literal"}
        if self.plausible > 0 or scores.device.type != "cpu":
            # Any token of a row may be implausible, so every token has evidence of its own. An accelerator adds to all
            # tokens of a row faster than the host launches what a sparse write needs.
            if self.groups is None:
                evidence += shared.evidence
            if self.plausible > 0:
                evidence.masked_fill_(~self._is_plausible(scores, shared), 0.0)
            shared = shared.replaced(evidence, self.weight, self.cap)
            return ExponentialTilting(scores=scores, shared=shared, places=None, own=evidence[:, :0], **step)
        none = contexts.new_zeros(len(scores), 0)
        own = Places.of(*((none, none.bool()) if places is None else (places.tokens, places.follows)), width)
        values = evidence.gather(1, own.tokens) + shared.evidence[own.tokens]
        self._zero_buffer = buffer.index_fill_(0, own.flat, 0.0)
        return ExponentialTilting(scores=scores, shared=shared, places=own, own=values, **step)

    def _mixture(self, ids: Tensor, contexts: Tensor, scores: Tensor) -> Mixture:
        """Compute the table's probabilities of the next token for all rows."""
        width = scores.shape[1]
        shared = self._shared_evidence(width, scores.device)
        fixed = None
        if self.once or self.plausible > 0:
            fixed = ~self._is_plausible(scores, shared)
            if self.once:
                repeats = fixed.new_zeros(fixed.numel() + 1).index_fill_(0, self._repeats(ids, width).flatten(), True)
                fixed |= repeats[:-1].view_as(fixed)
        other = mixture_of_orders(self.table, contexts, shared.order_weights, width)
        return Mixture(scores=scores, other=other, shared=shared, weight=self.weight, fixed=fixed, cap=self.cap)

    def _is_plausible(self, scores: Tensor, shared: SharedEvidence) -> Tensor:
        """Return whether each token is ordinary and has the plausible share of the largest probability."""
        floor = scores.amax(-1, keepdim=True) + (math.log(self.plausible) if self.plausible > 0 else -torch.inf)
        return (scores >= floor).index_fill_(1, shared.untouched, False)

    def _repeats(self, ids: Tensor, width: int) -> Tensor:
        """Return the flat places of tokens that would repeat a longest n-gram that ends within the continuation."""
        continuation = 0 if self.prompts is None else self.prompts.width
        return repeating_tokens(ids, order=self.table.orders, continuation=continuation, width=width)

    def _shared_evidence(self, width: int, device: torch.device) -> SharedEvidence:
        """Return the evidence that is the same at every step; computed once for each width and device."""
        if (width, device) not in self._shared:
            special, evidence = self.table.special.to(device), torch.zeros(width, device=device)
            beyond_tokenizer = torch.arange(self.table.size, max(width, self.table.size), device=device)
            if self.evidence is not None and self.groups is None:
                bounds = self.table.bounds(torch.zeros(1, dtype=torch.long, device=device))
                followers, values = self.evidence.after(1, bounds, width)
                evidence[followers.tokens[followers.follows]] = values[followers.follows] * self.order_weights[0]
            movable = (self.table.levels[0].keys % self.table.base).unique()
            self._shared[width, device] = SharedEvidence.of(
                evidence,
                untouched=torch.cat([special[special < width], beyond_tokenizer]),
                movable=movable[movable < min(width, self.table.size)],
                weight=self.weight,
                cap=self.cap,
                order_weights=torch.tensor(self.order_weights, device=device),
            )
        return self._shared[width, device]

    def _zeros(self, scores: Tensor) -> Tensor:
        """Return a flat buffer with a zero for each score and one more for `Places` where no token is.

        Every step clears the buffer for the next step.
        """
        buffer, self._zero_buffer = self._zero_buffer, torch.zeros(0)
        fits = buffer.numel() == scores.numel() + 1 and buffer.device == scores.device
        return buffer if fits else torch.zeros(scores.numel() + 1, device=scores.device)

    def _sees_padding(self, ids: Tensor) -> bool:
        """Return whether the longest context may reach into left padding."""
        if self.prompts is None or not self.prompts.padded:
            return False
        return ids.shape[1] - (self.table.orders - 1) < self.prompts.width

    def _move_to(self, device: torch.device) -> None:
        """Move the table to the device of the scores."""
        table = self.table.to(device)
        if table is not self.table:
            self.table = table
            self.evidence = None if self.evidence is None else self.evidence.on(table)


def _load(binding: Binding, name: str) -> NgramTable:
    """Return the table or nltk model passed to `bind` under this name, else the table in the file of this name.

    Raises:
        ModelError: the resource is neither a table nor an nltk model, or the table is of another tokenizer.
        FileFormatError: there is no such file, or the file is not a table.
    """
    table = binding.resource(name) if name in binding.resources else NgramTable.load(name)
    if is_nltk_model(table):
        return from_nltk(table, binding.tokenizer)
    if not isinstance(table, NgramTable):
        raise ModelError(
            f"ngram_style: table {name!r} must be an NgramTable or a model of nltk.lm, got {type(table).__name__}"
        )
    table.check_tokenizer(binding.tokenizer, "ngram_style")
    return table
