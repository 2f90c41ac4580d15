"""One generate call as a search sees it, and what the search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ScoresError
from logitkit.processors.engine.cache_memory import cache_bytes
from logitkit.processors.engine.dead_ends import DeadEnds, masked_rows
from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.searches.rows import Rows


@dataclass(eq=False)
class SearchCost:
    """What a search has cost so far.

    Attributes:
        forwards: forward passes of the generating model.
        tokens: tokens that these forwards read, over all rows, padding included.
        peak_rows: largest number of rows in the KV cache at once.
        peak_cache_bytes: largest number of bytes that KV caches held at once, those of second streams included.
        notes: further numbers of the search, such as ``accepted tokens a forward``.

    >>> cost = SearchCost()
    >>> cost.count(rows=4, columns=3, cache_bytes=96)
    >>> cost.forwards, cost.tokens, cost.peak_rows, cost.peak_cache_bytes
    (1, 12, 4, 96)
    """

    forwards: int = 0
    tokens: int = 0
    peak_rows: int = 0
    peak_cache_bytes: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def count(self, rows: int, columns: int, cache_bytes: int, forwards: int = 1) -> None:
        """Count forwards of this many rows and new tokens a row, after which caches hold this many bytes."""
        self.forwards, self.tokens = self.forwards + forwards, self.tokens + rows * columns
        self.peak_rows = max(self.peak_rows, rows)
        self.peak_cache_bytes = max(self.peak_cache_bytes, cache_bytes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """Sequences that a search found, ``k`` for each prompt; the sequences of one prompt are next to each other.

    Attributes:
        ids: tokens, prompts included, padded after the end, ``[prompts * k, length]``.
        logp: log-probability of the new tokens under the chain, nats, float64 ``[prompts * k]``.
        log_weights: normalised log-weights, float64 ``[prompts, k]``; None: equal weights.
        log_z: estimate of the logarithm of the normalising constant of each prompt, ``[prompts]``; None: no estimate.
        certainty: mean self-certainty of the new tokens, ``[prompts * k]``; None: not measured.
        sampled: whether the sequences are samples; if not, they are distinct, and their weights are probabilities.

    >>> found = Found(ids=torch.tensor([[1, 2], [1, 3]]), logp=torch.zeros(2, dtype=torch.float64))
    >>> found.weights_of(1).exp().tolist()
    [[0.5, 0.5]]
    """

    ids: Tensor
    logp: Tensor
    log_weights: Tensor | None = None
    log_z: Tensor | None = None
    certainty: Tensor | None = None
    sampled: bool = True

    @classmethod
    def of(
        cls, rows: Rows, *, log_weights: Tensor | None = None, log_z: Tensor | None = None, sampled: bool = True
    ) -> Found:
        """Return rows whose prompts are in order, as sequences of a search; those that came to a dead end weigh 0.

        Raises:
            ScoresError: all rows of a prompt came to a dead end.
        """
        certainty = rows.certainty if rows.run.measures_certainty else None
        if log_weights is None and bool(rows.lost.any()):
            lost = rows.lost.view(rows.run.prompts, -1)
            rows.run.refuse_lost(lost.all(-1))
            log_weights = torch.zeros_like(lost, dtype=torch.float64).masked_fill(lost, -torch.inf).log_softmax(-1)
        weights = {"log_weights": log_weights, "log_z": log_z}
        return cls(ids=rows.ids, logp=rows.logp, certainty=certainty, sampled=sampled, **weights)

    def weights_of(self, prompts: int) -> Tensor:
        """Return the log-weights, ``[prompts, k]``; equal ones where the search gave none."""
        if self.log_weights is not None:
            return self.log_weights
        equal = torch.zeros(prompts, len(self.ids) // prompts, dtype=torch.float64, device=self.ids.device)
        return equal.log_softmax(-1)

    def kept(self, index: Tensor, log_weights: Tensor | None) -> Found:
        """Return the sequences with these numbers, ``[prompts * n]``, with other weights."""
        certainty = None if self.certainty is None else self.certainty[index]
        weights = {"log_weights": log_weights, "log_z": self.log_z}
        return Found(ids=self.ids[index], logp=self.logp[index], certainty=certainty, sampled=self.sampled, **weights)


@dataclass(eq=False, kw_only=True)
class SearchRun:
    """One `generate` call, as a search sees it.

    Attributes:
        model: the generating model.
        ids: the prompts, ``[prompts, length]``.
        inputs: what `generate` prepared for the forwards of the prompts: masks, an empty cache, encoder outputs.
        processors: the law: the steps of the chain, then what the settings of `generate` add.
        stopping_criteria, generation_config: as `generate` prepared them.
        wanted: number of sequences of each prompt that are to be found.
        seeds: one seed for each prompt, int64 ``[prompts]``.
        tokenizer: of the model; None: unknown.
        settings: the `CallSettings` of a chain's call; None: the search runs without a chain.
        measures_certainty: whether `Rows` sum the self-certainty of their tokens.
        checks: the comparisons of rows that the call of a chain defers; None: there are none.
        streams: the second streams of the steps and of the search, whose KV caches count as memory.
        name: of the search, for errors.
        dead_ends: where the steps note rows for which they leave no token, if the search drops such rows; None: it
            does not.
        cost: counts forwards and tokens.

    >>> from logitkit.processors.searches import Search
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> class OneToken(Search):
    ...     def search(self, run):
    ...         rows = run.rows(run.wanted)
    ...         rows.append(rows.law().argmax(-1))
    ...         print(run.prompts, run.start, run.wanted, run.cost.forwards)
    ...         return Found.of(rows)
    >>> ids = tiny_tokenizer()("ab", return_tensors="pt").input_ids
    >>> tiny_model().generate(ids, custom_generate=OneToken(), max_new_tokens=4, pad_token_id=0).shape
    1 2 1 1
    torch.Size([1, 3])
    """

    model: Any
    ids: Tensor
    inputs: Mapping[str, Any]
    processors: Any
    stopping_criteria: Any
    generation_config: Any
    wanted: int
    seeds: Tensor
    tokenizer: Any = None
    settings: Any = None
    measures_certainty: bool = False
    checks: DeferredChecks | None = None
    streams: Mapping[str, Any] = field(default_factory=dict)
    name: str = "search"
    dead_ends: DeadEnds | None = None
    cost: SearchCost = field(default_factory=SearchCost)

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return len(self.ids)

    @property
    def start(self) -> int:
        """Number of tokens of a row before its first new token."""
        return self.ids.shape[1]

    @property
    def sampling(self) -> bool:
        """Whether `generate` was told to sample."""
        return bool(self.generation_config.do_sample)

    @property
    def max_new_tokens(self) -> int:
        """Largest number of new tokens of a row."""
        return int(self.generation_config.max_length) - self.start

    @property
    def padding(self) -> int:
        """Token that follows the end of a row."""
        pads = self.generation_config.pad_token_id
        ends = self.end_tokens
        return int(pads) if pads is not None else ends[0] if ends else 0

    @property
    def end_tokens(self) -> Sequence[int]:
        """Tokens at which a row ends; empty: there are none."""
        ends = self.generation_config.eos_token_id
        return () if ends is None else ends if isinstance(ends, (list, tuple)) else (int(ends),)

    def count(self, rows: int, columns: int, *caches: Any, forwards: int = 1) -> None:
        """Count one forward of the generating model.

        Args:
            rows: of the search.
            columns: tokens of a row that it read.
            caches: KV caches of the rows, or trees; those of models over bytes and of second streams are added.
            forwards: number of forwards that read these tokens and those of fused second streams.
        """
        streams = [*self.streams.values()]
        models = {id(model): model for model in (self.model, *(getattr(one, "model", None) for one in streams))}
        self.cost.count(rows, columns, cache_bytes(*caches, *models.values(), *streams), forwards=forwards)

    def rows(self, copies: int = 1) -> Rows:
        """Return rows of all prompts, ``copies`` of each next to each other; each prompt is read once."""
        rows = Rows(self, self.ids, self.inputs)
        if copies > 1:
            rows.law()
            rows.select(torch.arange(self.prompts, device=self.ids.device).repeat_interleave(copies))
        return rows

    def scores(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return the scores of the next token after the chain, ``[rows, vocab]``.

        Rows for which the chain leaves no token are -inf where the search drops them, and an error elsewhere.

        Args:
            ids: rows, ``[rows, length]``.
            logits: of the model after each row, fp32 ``[rows, vocab]``; not written to.
        """
        scores: Tensor = self.processors(ids, logits.clone())
        dead = [] if self.dead_ends is None else self.dead_ends.taken()
        return scores.index_fill(0, torch.tensor(dead, device=scores.device), -torch.inf) if dead else scores

    def law(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return log-probabilities of the next token under the chain, nats, fp32 ``[rows, vocab]``.

        Rows for which the chain leaves no token are -inf where the search drops them, and an error elsewhere.

        Args:
            ids: rows, ``[rows, length]``.
            logits: of the model after each row, fp32 ``[rows, vocab]``; not written to.
        """
        scores = self.scores(ids, logits)
        law = log_probabilities(scores)
        return law if self.dead_ends is None else law.masked_fill(masked_rows(scores)[:, None], -torch.inf)

    def refuse_lost(self, lost: Tensor) -> None:
        """Refuse a prompt all of whose rows have come to a dead end.

        Args:
            lost: whether each prompt is such a prompt, bool ``[prompts]``.

        Raises:
            ScoresError: names the prompt, and the step that left no token.
        """
        if not bool(lost.any()):
            return
        reason = "" if self.dead_ends is None else self.dead_ends.reason
        raise ScoresError(
            f"{self.name}: prompt {int(lost.nonzero()[0])} must keep a row with a token, got none that the chain "
            f"leaves within {self.max_new_tokens} new tokens; {reason or 'loosen the steps'}"
        )
