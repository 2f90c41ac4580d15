"""Style injection: favour what a corpus would say next (arXiv:2601.16224), with the sign put right.

The evidence of an n-gram is in `logitkit.processors.ngram.evidence`. Here it is gathered for the rows of a batch
together and added where the table has something to say. Two departures, under every rule but ``literal``:
ordinary tokens are shifted together so that the probability of special tokens (the end of the text) stays what
it was, and a normalised row stays normalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.padding import BoundPrompts, without_padding
from logitkit.processors.engine.trace import Trace
from logitkit.processors.ngram.evidence import Evidence, Rule, default_weights, mixture
from logitkit.processors.ngram.exponential_tilting import ExponentialTilting, Fixed, Mixture, strength_for
from logitkit.processors.ngram.table import NgramTable

Weight = Annotated[float, number("strength; below 0 the style is avoided", ge=-1, le=1, neutral=0)]
Weights = Annotated[list[float] | None, option("a weight for each order; None: 1 : 3 : 6 : 10 : 15, normalised")]
PseudoCount = Annotated[float, number("lift is log((count + k) / k)", gt=0)]
Top = Annotated[int | None, whole("only so many most frequent tokens of a context count; None: all", ge=1)]
CapBits = Annotated[float | None, number("no token moves by more than this, in bits; None: no cap", gt=0)]
Plausible = Annotated[
    float, number("only tokens of at least this share of the best probability move; 0: all", ge=0, le=1)
]
Once = Annotated[bool, option("no gain for a longest n-gram that the continuation holds already")]
TargetJS = Annotated[
    float | None, number("choose the strength, up to weight, that moves a row by so many bits (JS)", gt=0, lt=1)
]
Groups = Annotated[Callable[[Tensor], Tensor] | None, Resource()]
Noted = Annotated[Trace | None, Resource()]


class NgramStyle(LogitsProcessor):
    """Add the evidence of n-grams to the scores.

    Args:
        table: the style, counted with the model's tokenizer.
        background: neutral text, which ``pmi`` compares with.
        prompts: the bound prompts, so that left padding is not read as text.
        groups: which corpus of the table each row is looked up in, ``rows of tokens -> [rows]``; None: the first.
        trace: where strengths are noted.
    """

    @checked
    def __init__(
        self,
        *,
        table: Annotated[NgramTable, Resource()],
        weight: Weight = 0.2,
        rule: Annotated[
            Rule, option("lift: seen tokens gain; literal: as published, they lose; pmi: against background; mixture")
        ] = "lift",
        order_weights: Weights = None,
        k: PseudoCount = 1e-3,
        top: Top = None,
        cap_bits: CapBits = None,
        plausible: Plausible = 0.0,
        once: Once = False,
        target_js: TargetJS = None,
        background: Annotated[NgramTable | None, Resource()] = None,
        prompts: BoundPrompts = None,
        groups: Groups = None,
        trace: Noted = None,
    ) -> None:
        weights = default_weights(table.orders) if order_weights is None else list(order_weights)
        if len(weights) != table.orders or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            rule_text = f"{table.orders} numbers >= 0, one for each order of the table, not all 0"
            raise ParameterError("ngram_style", "order_weights", rule_text, order_weights)
        if rule == "mixture" and weight < 0:
            raise ParameterError("ngram_style", "weight", "from 0 to 1 for rule 'mixture'", weight)
        if (rule == "pmi") != (background is not None):
            must = "given for rule 'pmi'" if rule == "pmi" else "left out, only rule 'pmi' compares with one"
            raise ParameterError("ngram_style", "background", must, background)
        if rule == "mixture" and top is not None:
            raise ParameterError("ngram_style", "top", "None for rule 'mixture'", top)
        if table.base > table.size and table.groups > 1:
            raise ParameterError("ngram_style", "table", "of one corpus, or of words of the tokenizer", table)
        self.table, self.weight, self.rule, self.order_weights = table, weight, rule, weights
        self.cap = math.inf if cap_bits is None else cap_bits * math.log(2)
        self.plausible, self.once, self.target_js = plausible, once, target_js
        self.prompts, self.groups, self.trace = prompts, groups, trace
        self.evidence = Evidence(table, rule, k=k, top=top, background=background)
        self._fixed: dict[tuple[int, torch.device], Fixed] = {}
        self._board = torch.zeros(0)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        table: Annotated[str, option("a table's file, or a name passed to bind")],
        background: Annotated[str | None, option("the table that pmi compares with: a file or a name")] = None,
        **strength: Any,
    ) -> NgramStyle:
        """Load the table, and make sure that it was counted with the model's tokenizer.

        Raises:
            ModelError: it was not.
            FileFormatError: no such file, truncated or foreign.
        """
        tables = [None if name is None else _table(binding, name) for name in (table, background)]
        assert tables[0] is not None
        return cls(table=tables[0], background=tables[1], prompts=binding.prompts, trace=binding.trace, **strength)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the style favoured, ``[rows, vocab]``; special tokens keep their probability."""
        if is_neutral(self.weight, 0):
            return scores
        given, scores = scores, scores.float()
        self._follow(scores.device)
        ids = without_padding(self.prompts, input_ids, self.table.base) if self._sees_padding(input_ids) else input_ids
        contexts = self.table.contexts(ids, None if self.groups is None else self.groups(input_ids))
        steer = (self._mixture if self.rule == "mixture" else self._tilt)(ids, contexts, scores)
        if self.target_js is None:
            return steer.at().to(given.dtype)
        strength = strength_for(self.target_js, self.weight, len(scores), steer.divergence(), scores)
        if self.trace is not None:
            self.trace.note(strength=strength[:, 0])
        return steer.at(strength).to(given.dtype)

    def _tilt(self, ids: Tensor, contexts: Tensor, scores: Tensor) -> ExponentialTilting:
        """Gather the evidence for all rows.

        What follows a context also follows its shorter ones, so the places of the lowest order hold all others.
        """
        width = scores.shape[1]
        fixed = self._of_width(width, scores.device)
        lowest = 1 if self.groups is not None else 2  # single tokens are the same in every row of one corpus
        board = self._zeros(scores)
        rows = places = contexts.new_zeros(0)
        for order in range(lowest, self.table.orders + 1):
            of_row, place, values = self._gather(order, contexts[:, order - 1], width)
            board.index_add_(0, place, values)
            rows, places = (of_row, place) if order == lowest else (rows, places)
        if self.once:
            board[self._repeats(ids, width)] = 0.0
        written = places
        if self.plausible > 0:
            rows, tokens = self._plausible(scores, fixed).nonzero(as_tuple=True)
            places = rows * width + tokens
        own = board.index_select(0, places) + fixed.shared.index_select(0, places - rows * width)
        self._board = board.index_fill_(0, written, 0.0)
        return ExponentialTilting(
            scores=scores,
            fixed=fixed if self.plausible <= 0 else fixed.without_shared(),
            places=places,
            rows=rows,
            own=own,
            weight=self.weight,
            cap=self.cap,
            keep=self.rule != "literal",
        )

    def _mixture(self, ids: Tensor, contexts: Tensor, scores: Tensor) -> Mixture:
        """What the table holds likely next, for all rows."""
        width = scores.shape[1]
        fixed = self._of_width(width, scores.device)
        stays = None
        if self.once or self.plausible > 0:
            stays = ~self._plausible(scores, fixed)
            if self.once:
                stays.view(-1)[self._repeats(ids, width)] = True
        other = mixture(self.table, contexts, self.order_weights, width)
        return Mixture(scores=scores, other=other, fixed=fixed, weight=self.weight, stays=stays, cap=self.cap)

    def _gather(self, order: int, contexts: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, places in flat rows, and weighted evidence of everything that follows the contexts of one order."""
        rows, tokens, entries = self.table.followers(order, contexts)
        if self.table.base > min(width, self.table.size):
            inside = tokens < min(width, self.table.size)
            rows, tokens, entries = rows[inside], tokens[inside], entries[inside]
        return rows, rows * width + tokens, self.evidence.of(order, entries) * self.order_weights[order - 1]

    def _plausible(self, scores: Tensor, fixed: Fixed) -> Tensor:
        """Which ordinary tokens have at least the asked share of the best probability, ``[rows, vocab]``."""
        floor = scores.amax(-1, keepdim=True) + (math.log(self.plausible) if self.plausible > 0 else -torch.inf)
        return (scores >= floor).index_fill_(1, fixed.untouched, False)

    def _repeats(self, ids: Tensor, width: int) -> Tensor:
        """Places of tokens that would repeat a longest n-gram whose last token is in the continuation."""
        length = self.table.orders - 1
        begin = 0 if self.prompts is None else self.prompts.width
        ids = ids[:, max(begin - length, 0) :]
        if ids.shape[1] <= length or not length:
            return ids.new_zeros(0)
        windows = ids.unfold(1, length, 1)  # [rows, places, length]
        rows, places = (windows[:, :-1] == windows[:, -1:]).all(-1).nonzero(as_tuple=True)
        tokens = ids[rows, places + length]
        inside = (tokens >= 0) & (tokens < width)
        return rows[inside] * width + tokens[inside]

    def _of_width(self, width: int, device: torch.device) -> Fixed:
        """What is the same at every step."""
        if (width, device) not in self._fixed:
            special, single = self.table.special.to(device), torch.zeros(width, device=device)
            padding = torch.arange(self.table.size, max(width, self.table.size), device=device)
            untouched = torch.cat([special[special < width], padding])
            if self.rule != "mixture" and self.groups is None:
                _, place, values = self._gather(1, torch.zeros(1, dtype=torch.long, device=device), width)
                single[place] = values
            moving = (self.table.levels[0].keys % self.table.base).unique()
            moving = moving[moving < min(width, self.table.size)]
            self._fixed[width, device] = Fixed.of(
                untouched=untouched, shared=single, weight=self.weight, cap=self.cap, moving=moving
            )
        return self._fixed[width, device]

    def _zeros(self, scores: Tensor) -> Tensor:
        """A flat board of zeros, one for each score; kept again once what was written on it is cleared."""
        board, self._board = self._board, torch.zeros(0)
        fits = board.numel() == scores.numel() and board.device == scores.device
        return board if fits else torch.zeros(scores.numel(), device=scores.device)

    def _sees_padding(self, ids: Tensor) -> bool:
        """Whether left padding is among the tokens that are looked at."""
        if self.prompts is None or not self.prompts.padded:
            return False
        return ids.shape[1] - (self.table.orders - 1) < self.prompts.width

    def _follow(self, device: torch.device) -> None:
        """Keep the table on the device of the scores."""
        table = self.table.to(device)
        if table is not self.table:
            known = self.evidence
            self.table = table
            self.evidence = Evidence(table, known.rule, k=known.k, top=known.top, background=known.background)


def _table(binding: Binding, name: str) -> NgramTable:
    """The table passed to `bind` under this name, else the one in the file."""
    found = binding.resource(name) if name in binding.resources else NgramTable.load(name)
    if not isinstance(found, NgramTable):
        raise ModelError(f"ngram_style: table {name!r} must be an NgramTable, got {type(found).__name__}")
    found.check_tokenizer(binding.tokenizer, "ngram_style")
    return found
