"""Style injection: favour what a corpus would say next (arXiv:2601.16224), with the sign put right.

The evidence of an n-gram is in `logitkit.processors.style_rules`. Here it is gathered for the rows of a batch
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
from logitkit.processors.binding import Binding
from logitkit.processors.ngram import NgramTable
from logitkit.processors.style_rules import Evidence, Rule, default_weights, mixture
from logitkit.processors.trace import Trace, js_bits
from logitkit.processors.warpers import Bound, without_padding

HALVINGS = 12  # of the strength, in search of a divergence: to 1 / 4096 of the weight

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
        prompts: Bound = None,
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
        self.cap_bits, self.plausible, self.once, self.target_js = cap_bits, plausible, once, target_js
        self.prompts, self.groups, self.trace = prompts, groups, trace
        self.evidence = Evidence(table, rule, k=k, top=top, background=background)
        self._kept: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

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
        self._follow(scores.device)
        ids = without_padding(self.prompts, input_ids, self.table.base) if self._sees_padding(input_ids) else input_ids
        contexts = self.table.contexts(ids, None if self.groups is None else self.groups(input_ids))
        evidence = self._evidence(ids, contexts, scores)

        def steered(strength: Tensor | float) -> Tensor:
            return self._add(scores, self._moves(scores, evidence, strength))

        if self.target_js is None:
            return steered(self.weight)
        strength = strength_for(self.target_js, self.weight, scores, steered)
        if self.trace is not None:
            self.trace.note(strength=strength[:, 0])
        return steered(strength)

    def _evidence(self, ids: Tensor, contexts: Tensor, scores: Tensor) -> Tensor:
        """What is said of each token, ``[rows, vocab]``: nats, or (mixture) the logarithm of its probability."""
        rows, width = scores.shape
        if self.rule == "mixture":
            total = mixture(self.table, contexts, self.order_weights, width)
            total.index_fill_(1, self._of_width(width, scores.device)[0], 0.0)
            total = total.masked_fill(scores == -torch.inf, 0.0)
            total = (total / total.sum(-1, keepdim=True)).log()  # nan: the table has nothing to say
        else:
            dense = self.groups is None
            total = self._of_width(width, scores.device)[1].repeat(rows, 1) if dense else scores.new_zeros(rows, width)
            for order in range(2 if dense else 1, self.table.orders + 1):
                self._gather(total, order, contexts[:, order - 1])
        if self.once:
            begin = 0 if self.prompts is None else self.prompts.width
            _spare_repeats(total, ids, self.table, begin, neutral=torch.nan if self.rule == "mixture" else 0.0)
        return total

    def _gather(self, total: Tensor, order: int, contexts: Tensor) -> None:
        """Add the evidence of one order, for everything that follows the contexts."""
        if is_neutral(self.order_weights[order - 1], 0):
            return
        rows, tokens, entries = self.table.followers(order, contexts)
        width = total.shape[1]
        values = self.evidence.of(order, entries) * self.order_weights[order - 1]
        if self.table.base > width or self.table.base > self.table.size:
            inside = tokens < min(width, self.table.size)
            rows, tokens, values = rows[inside], tokens[inside], values[inside]
        total.view(-1).index_add_(0, rows * width + tokens, values)

    def _moves(self, scores: Tensor, evidence: Tensor, strength: Tensor | float) -> Tensor:
        """By how much each score moves, in nats, ``[rows, vocab]``."""
        if self.rule == "mixture":
            logp = scores.float()
            kept = logp.index_fill(1, self._of_width(scores.shape[1], scores.device)[0], -torch.inf)
            logp = logp - kept.logsumexp(-1, keepdim=True)  # among ordinary tokens
            s = torch.as_tensor(strength, dtype=torch.float32, device=scores.device)
            moves = torch.logaddexp(torch.log1p(-s) + logp, s.log() + evidence) - logp
            moves = torch.where(logp > -torch.inf, moves, 0.0).nan_to_num(nan=0.0, neginf=-torch.inf)
        else:
            moves = evidence * strength
        if self.cap_bits is not None:
            most = self.cap_bits * math.log(2)
            moves = moves.clamp(-most, most)
        if self.plausible > 0:
            floor = scores.amax(-1, keepdim=True) + math.log(self.plausible)
            moves = moves.masked_fill(scores < floor, 0.0)
        return moves

    def _add(self, scores: Tensor, moves: Tensor) -> Tensor:
        """Move the scores; special tokens and ids that the tokenizer lacks keep score and probability."""
        if self.rule == "literal":
            return scores + moves.to(scores.dtype)
        untouched = self._of_width(scores.shape[1], scores.device)[0]
        ordinary = scores.index_fill(1, untouched, -torch.inf)
        moved = ordinary + moves
        shift = ordinary.logsumexp(-1, keepdim=True) - moved.logsumexp(-1, keepdim=True)
        moved = moved + torch.where(shift.isfinite(), shift, 0.0)
        return moved.index_copy(1, untouched, scores[:, untouched]).to(scores.dtype)

    def _of_width(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """What is the same at every step: ids that keep their scores, and the evidence of single tokens ``[vocab]``.

        Special tokens keep their scores, and so do ids that the tokenizer lacks.
        """
        if (width, device) not in self._kept:
            special = self.table.special.to(device)
            padding = torch.arange(self.table.size, max(width, self.table.size), device=device)
            single = torch.zeros(1, width, device=device)
            if self.rule != "mixture" and self.groups is None:
                self._gather(single, 1, torch.zeros(1, dtype=torch.long, device=device))
            self._kept[width, device] = torch.cat([special[special < width], padding]), single[0]
        return self._kept[width, device]

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


def strength_for(bits: float, weight: float, scores: Tensor, steered: Callable[[Tensor], Tensor]) -> Tensor:
    """Find for each row the strength that moves it by so many bits; ``weight`` where even that moves it less.

    The divergence of a tilted distribution grows with the strength, so halving finds it.

    Args:
        bits: Jensen-Shannon divergence between the row before and after.
        weight: the strongest allowed, with its sign.
        scores: ``[rows, vocab]``.
        steered: the row at strengths ``[rows, 1]``.

    Returns:
        ``[rows, 1]``.
    """
    low = torch.zeros(len(scores), 1, device=scores.device)
    high = torch.full_like(low, weight)
    low = torch.where(js_bits(scores, steered(high))[:, None] <= bits, high, low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = js_bits(scores, steered(middle))[:, None] <= bits
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return low


def _spare_repeats(evidence: Tensor, ids: Tensor, table: NgramTable, begin: int, *, neutral: float) -> None:
    """Take the evidence away from tokens that would repeat a longest n-gram, ended by a token from ``begin`` on."""
    length = table.orders - 1
    ids = ids[:, max(begin - length, 0) :]
    if ids.shape[1] <= length or not length:
        return
    windows = ids.unfold(1, length, 1)  # [rows, places, length]
    context = windows[:, -1:]
    sound = (context >= 0) & (context < table.size) & ~torch.isin(context, table.special.to(ids.device))
    again = ((windows[:, :-1] == context) & sound).all(-1)  # [rows, places - 1]
    rows, places = again.nonzero(as_tuple=True)
    tokens = ids[rows, places + length]
    inside = (tokens >= 0) & (tokens < evidence.shape[1])
    evidence[rows[inside], tokens[inside]] = neutral


def _table(binding: Binding, name: str) -> NgramTable:
    """The table passed to `bind` under this name, else the one in the file."""
    found = binding.resource(name) if name in binding.resources else NgramTable.load(name)
    if not isinstance(found, NgramTable):
        raise ModelError(f"ngram_style: table {name!r} must be an NgramTable, got {type(found).__name__}")
    found.check_tokenizer(binding.tokenizer, "ngram_style")
    return found
