"""Log-probabilities that a chain's earlier steps gave to the tokens already written.

Controllers such as adaptive temperatures fold over these values, which a processor's arguments do not hold. The values
depend on the tokens of the rows alone; the cache changes the time of a computation, never its result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.fold import Fold
from logitkit.processors.engine.log_probabilities import shared_log_probabilities
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.scores import with_infinite_masks
from logitkit.processors.engine.streams import Stream, declared_streams
from logitkit.processors.engine.trace import Trace

CHUNK = 64  # positions whose logits are in memory at once


@dataclass(frozen=True, eq=False)
class _Known:
    """Values cached for some rows, looked up by the tokens of the rows.

    Attributes:
        rows: token ids, ``[cached, length]``.
        prompts: number of the prompt of each cached row, ``[cached]``.
        values: ``[cached, columns, size]``: for each continuation token its log-probability, then the states of the
            folds; or ``[cached, vocab]``: the log-probability of each token of the vocabulary.
        key: the keys of the folds when the values were computed.
    """

    rows: Tensor
    prompts: Tensor
    values: Tensor
    key: Hashable


@dataclass(frozen=True, eq=False)
class HistoryCache:
    """The cached values of a `History`.

    Attributes:
        written: values of continuation tokens.
        following: values of every token of the vocabulary after the rows observed last.
    """

    written: _Known | None = None
    following: _Known | None = None


class History:
    """Log-probability of each continuation token under the generating model and the preceding steps of a chain.

    The value at position t equals that of scoring the row: the model's logits after the prefix of length t pass
    through the preceding processors, are normalised, and are read at token t. `Binding.history` builds a history for
    each step.

    While the chain runs, `observe` extends the cache without a forward. Tokens that the cache does not hold are read by
    ``stream`` in chunks of 64, and the preceding processors are called once for each of these tokens.

    Args:
        prompts: the prompts of the call.
        parts: the preceding ``(name, processor)`` steps, in order; empty: the generating model alone.
        stream: next-token logits of the generating model under the call's prompts; None: there is no model, and rows
            that the cache does not hold are an error.
        trusted: whether a tensor of scores, ``[rows, vocab]``, is the output of the generating model. Scores of a
            draft model, for instance, are not.
        trace: the trace of the call; reading past positions does not change it.

    Attributes:
        cache: the cached values; the results stay correct if an earlier cache is restored.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import Prompts, as_stream
        >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
        ...                   adds_specials=False)
        >>> fair = as_stream(lambda rows: torch.tensor([0.5, 0.25, 0.25]).log().expand(len(rows), 3))
        >>> History(prompts, (), stream=fair)(torch.tensor([[0, 0, 2]])).exp()  # the first token is the prompt
        tensor([[0.5000, 0.2500]], dtype=torch.float64)
    """

    def __init__(
        self,
        prompts: Prompts,
        parts: Sequence[tuple[str, LogitsProcessor]],
        *,
        stream: Stream | None,
        trusted: Callable[[Tensor], bool] = lambda scores: True,
        trace: Trace | None = None,
        settings: CallSettings | None = None,
    ) -> None:
        self.prompts, self.parts, self.stream = prompts, tuple(parts), stream
        self.trace = trace or Trace()
        self._settings = settings
        self._trusted = trusted
        self._folds: list[tuple[Fold, slice]] = []
        self.cache = HistoryCache()

    @property
    def start(self) -> int:
        """Number of tokens of a row that no step of the chain chose; a decoder's prompt is among them."""
        own = self.prompts.width + self.prompts.in_encoder
        return own if self._settings is None else self._settings.start

    def __reduce__(self) -> Any:
        raise ModelError("History: cannot be pickled, because it reads a model; pickle the chain and bind it again")

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the log-probability of each continuation token of each row.

        Args:
            rows: token ids, ``[rows, length]``: bound prompt and continuation.

        Returns:
            Nats, float64, ``[rows, continuation length]``, on the device of the rows. The padding that `generate`
            appends to a finished row has a value without meaning.

        Raises:
            PromptError: a row starts with no bound prompt.
            ModelError: the cache does not hold the rows, and there is no model to read them.
        """
        return self._values(rows)[..., 0].clone()

    def folded(self, fold: Fold) -> Callable[[Tensor], Tensor]:
        """Return a function of rows, ``[rows, length]``, that gives the state of a fold after each row.

        The states are cached and recomputed like the log-probabilities; errors are those of `__call__`.

        Args:
            fold: its state after a row is float64, ``[size]``.

        Example:
            >>> import math, torch
            >>> from logitkit.processors.engine import Prompts, as_stream
            >>> class Surprise:  # the sum of the surprises of the tokens, in nats
            ...     key = None
            ...     initial = lambda self: torch.zeros(1, dtype=torch.float64)
            ...     update = lambda self, states, logp, tokens: states - logp.gather(1, tokens[:, None])
            >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
            ...                   adds_specials=False)
            >>> fair = as_stream(lambda rows: torch.tensor([0.5, 0.25, 0.25]).log().expand(len(rows), 3))
            >>> surprise = History(prompts, (), stream=fair).folded(Surprise())
            >>> surprise(torch.tensor([[0, 0, 2]])) / math.log(2)  # bits: those of 0.5 and 0.25
            tensor([[3.0000]], dtype=torch.float64)
        """
        begin = self._folds[-1][1].stop if self._folds else 1
        place = slice(begin, begin + len(fold.initial()))
        self._folds.append((fold, place))
        self.cache = HistoryCache()  # values without the states of this fold
        return _States(self, fold, place)

    @torch.no_grad()
    def _values(self, rows: Tensor) -> Tensor:
        """Return the log-probability and the states after each continuation token, ``[rows, count, size]``."""
        count = max(0, rows.shape[1] - self.start)
        index = self.prompts.rows(rows)
        values = self._cached(rows, index)
        if values.shape[1] < count:
            values = self._read(rows, values)
            self.cache = replace(self.cache, written=_Known(rows, index, values, self._key))
        return values

    @property
    def _key(self) -> Hashable:
        """The keys of all folds."""
        return tuple(fold.key for fold, _ in self._folds)

    @torch.no_grad()
    def observe(self, rows: Tensor, raw: Tensor, scores: Tensor) -> None:
        """Extend the cache by the scores of a step of the running chain.

        Args:
            rows: token ids, ``[rows, length]``.
            raw: scores before the chain, ``[rows, vocab]``; untrusted ones are ignored.
            scores: scores after the preceding processors, ``[rows, vocab]``.
        """
        if not self._trusted(raw):
            return
        index, key = self.prompts.rows(rows), self._key
        values = self._cached(rows, index)
        complete = values.shape[1] == rows.shape[1] - self.start
        logp = with_infinite_masks(scores).double().log_softmax(-1)
        self.cache = HistoryCache(
            written=_Known(rows, index, values, key) if complete else self.cache.written,
            following=_Known(rows, index, logp, key),
        )

    def _cached(self, rows: Tensor, index: Tensor) -> Tensor:
        """Return the cached values of as many leading continuation tokens as the cache holds for every row."""
        count = max(0, rows.shape[1] - self.start)
        size = self._folds[-1][1].stop if self._folds else 1
        values = torch.zeros((len(rows), 0, size), dtype=torch.float64, device=rows.device)
        written, last = self.cache.written, self.cache.following
        if written is not None and written.key == self._key:
            shared_length, source = _longest_prefix(rows, index, written)
            values = written.values[source, : max(0, shared_length - self.start)]
        if last is not None and values.shape[1] == count - 1 and last.rows.shape[1] == rows.shape[1] - 1:
            shared_length, source = _longest_prefix(rows, index, last)
            if shared_length == rows.shape[1] - 1:
                values = torch.cat([values, self._next(values, last.values, source, rows[:, -1])], dim=1)
        return values

    def _next(self, values: Tensor, logp: Tensor, source: Tensor, tokens: Tensor) -> Tensor:
        """Return the values of one more token of each row, ``[rows, 1, size]``.

        Args:
            values: those of the tokens before, ``[rows, columns, size]``.
            logp: log-probabilities of the token, ``[cached, vocab]``.
            source: the row of ``logp`` that belongs to each row, ``[rows]``.
            tokens: the token of each row, ``[rows]``.
        """
        parts = [logp[source, tokens][:, None]]
        for fold, place in self._folds:
            first = fold.initial().to(logp.device).expand(len(tokens), -1)
            before = values[:, -1, place] if values.shape[1] else first
            parts.append(fold.update(before, logp[source], tokens))
        return torch.cat(parts, dim=1)[:, None]

    def _read(self, rows: Tensor, values: Tensor) -> Tensor:
        """Return the values with those of the tokens that the cache did not hold, ``[rows, count, size]``."""
        if self.stream is None:
            raise ModelError(
                "history: the log-probabilities of these rows must be known, but no step of the chain saw their "
                "prefixes and there is no model to read them; bind the chain to the generating model"
            )
        with self.trace.paused(), self.prompts.deferred_checks.immediate():
            for end in range(self.start + values.shape[1], rows.shape[1], CHUNK):
                values = self._read_chunk(self.stream, rows, range(end, min(end + CHUNK, rows.shape[1])), values)
        return values

    def _read_chunk(self, stream: Stream, rows: Tensor, places: range, values: Tensor) -> Tensor:
        """Return the values with those of the tokens at consecutive places of the rows."""
        before, count = rows[:, : places[-1]], len(places)
        logits = stream.positions(before, count)  # [rows, count, vocab]
        for declared in declared_streams(self.parts):
            if declared.fusable:  # one forward for all positions; the calls below then find their logits in its cache
                declared.positions(before, count)
        own = torch.arange(len(rows), device=rows.device)
        for number, place in enumerate(places):
            scores = self._processed(rows[:, :place], logits[:, number])
            logp = with_infinite_masks(scores).double().log_softmax(-1)
            values = torch.cat([values, self._next(values, logp, own, rows[:, place])], dim=1)
        return values

    def _processed(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after the preceding processors, ``[rows, vocab]``."""
        with shared_log_probabilities():
            for _, part in self.parts:
                scores = part(rows, scores)
        return scores


@dataclass(frozen=True, eq=False)
class _States:
    """The states of a fold, by row."""

    history: History
    fold: Fold
    place: slice

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the state after each row, ``[rows, size]``."""
        values = self.history._values(rows)
        if not values.shape[1]:
            return self.fold.initial().to(rows.device).repeat(len(rows), 1)
        return values[:, -1, self.place].clone()


def _longest_prefix(rows: Tensor, index: Tensor, known: _Known) -> tuple[int, Tensor]:
    """Return how many leading tokens every row shares with a cached row of its prompt, and that row, ``[rows]``."""
    width = min(rows.shape[1], known.rows.shape[1])
    equal = rows[:, None, :width] == known.rows[None, :, :width]  # [rows, cached, width]
    length = equal.long().cumprod(-1).sum(-1).masked_fill(index[:, None] != known.prompts[None], 0)
    best, source = length.max(-1)
    return int(best.min()), source
