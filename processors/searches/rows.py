"""Rows that grow by one token at a time, with their KV cache: what a search decodes with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import MaxLengthCriteria, MaxTimeCriteria, StoppingCriteriaList

from logitkit.processors.engine.cache_rewinding import can_crop
from logitkit.processors.engine.model_view import forwards_of
from logitkit.processors.searches.certainty import self_certainty
from logitkit.processors.transformers_api import cache_of

if TYPE_CHECKING:
    from logitkit.processors.searches.run import SearchRun

# Attributes of `Rows` with one entry a row.
_OF_ROWS = ("ids", "prompt", "finished", "grew", "logp", "lengths", "_certainty", "_raw", "_law", "last_hidden", "lost")


class RowsMark(NamedTuple):
    """What `Rows.rewind` goes back to: everything about rows but their KV cache.

    Attributes:
        values: the attributes of the rows by name.
        inputs: what the next forward is given, without the cache.
        read: tokens of a row that a forward had read.
    """

    values: Mapping[str, Any]
    inputs: Mapping[str, Any]
    read: int


class Rows:
    """The rows of a search; greedy decoding is ``while not rows.done: rows.append(rows.law().argmax(-1))``.

    Made by `SearchRun.rows`. A row that has ended gets padding, and its log-probability stays.

    Attributes:
        run: the run of the search.
        ids: tokens, prompts included, ``[rows, length]``.
        prompt: number of the prompt of each row, ``[rows]``.
        finished: whether each row has ended, bool ``[rows]``.
        lost: whether no token was left behind each row, which ended there, bool ``[rows]``; see `Search.drops`.
        grew: whether the last token of each row is a new token, not padding, bool ``[rows]``.
        logp: log-probability of the new tokens of each row under the chain, nats, float64 ``[rows]``.
        lengths: number of new tokens of each row, the end token included, ``[rows]``.
        hidden: whether forwards keep the last hidden states; set it before `law`.
        last_hidden: those of the tokens that the last forward read, ``[rows, tokens, width]``; None without ``hidden``.

    >>> from logitkit.processors.searches import Found, Search
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> class TwoTokens(Search):
    ...     def search(self, run):
    ...         rows = run.rows()
    ...         for _ in range(2):
    ...             rows.append(rows.law().argmax(-1))
    ...         print(len(rows), rows.lengths.tolist(), rows.done)
    ...         return Found.of(rows)
    >>> ids = tiny_tokenizer()("ab", return_tensors="pt").input_ids
    >>> tiny_model().generate(ids, custom_generate=TwoTokens(), max_new_tokens=4, pad_token_id=0).shape
    1 [2] False
    torch.Size([1, 4])
    """

    def __init__(self, run: SearchRun, ids: Tensor, inputs: Mapping[str, Any]) -> None:
        rows = len(ids)
        self.run, self.ids, self._inputs = run, ids, dict(inputs)
        self.prompt = torch.arange(rows, device=ids.device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=ids.device)
        self.grew, self.lost = torch.zeros_like(self.finished), torch.zeros_like(self.finished)
        self.logp = torch.zeros(rows, dtype=torch.float64, device=ids.device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=ids.device)
        self.hidden = False
        self.last_hidden: Tensor | None = None
        self._certainty = torch.zeros_like(self.logp)  # sum over the new tokens
        self._raw: Tensor | None = None
        self._law: Tensor | None = None
        self._read = 0  # tokens of a row that a forward has read
        self._beside: tuple[Any, ...] = ()  # caches of the rows that these were forked from
        self._unread: Any = None  # a copy of the cache before the first forward; None: the rows are not rewound

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def done(self) -> bool:
        """Whether every row has ended; reads the device."""
        return bool(self.finished.all())

    @property
    def raw(self) -> Tensor:
        """Logits of the next token before the chain, fp32 ``[rows, vocab]``; runs a forward if one is due."""
        if self._raw is None:
            self._forward()
        assert self._raw is not None
        return self._raw

    @property
    def certainty(self) -> Tensor:
        """Mean self-certainty of the new tokens of each row, nats, float64 ``[rows]``; see `self_certainty`."""
        return self._certainty / self.lengths.clamp_min(1)

    @property
    def cache(self) -> Any:
        """The KV cache of the rows; None before the first forward of some models, and where there is none."""
        return _cache_in(self._inputs)

    @property
    def ended(self) -> Tensor:
        """Whether an end token or a stop string ended each row, and not the limit of its length, bool ``[rows]``."""
        limits = (MaxLengthCriteria, MaxTimeCriteria)
        texts = StoppingCriteriaList([one for one in self.run.stopping_criteria if not isinstance(one, limits)])
        by_text: Tensor = texts(self.ids, None) if texts else torch.zeros_like(self.finished)
        return (by_text | (self.finished & ~self.grew)) & ~self.lost

    def law(self) -> Tensor:
        """Return log-probabilities of the next token under the chain, nats, fp32 ``[rows, vocab]``.

        Runs one forward where tokens were appended since the last one. Where the search drops rows without a token,
        these rows end here: they are `lost`, and their log-probability is -inf.
        """
        if self._law is None:
            by_place = self.run.model.config.is_encoder_decoder
            self._law = self._law_by_place() if by_place else self.run.law(self.ids, self.raw)
            if self.run.dead_ends is not None:
                self.end(lost=self._law.amax(-1) == -torch.inf)
        return self._law

    def end(self, lost: Tensor) -> None:
        """End rows that lead to no text; rows that have ended stay as they are.

        Args:
            lost: which rows, bool ``[rows]``.
        """
        lost = lost & ~self.finished
        self.lost, self.finished = self.lost | lost, self.finished | lost
        self.logp = self.logp.masked_fill(lost, -torch.inf)

    def append(self, tokens: Tensor, law: Tensor | None = None, ends: Tensor | None = None) -> None:
        """Append one token to each row.

        Args:
            tokens: ids, ``[rows]``; those of rows that have ended are replaced by padding.
            law: log-probabilities that ``logp`` adds up, ``[rows, vocab]``; None: `law`.
            ends: which rows end, bool ``[rows]``; None: the stopping criteria are asked.
        """
        law, going = self.law() if law is None else law, ~self.finished
        tokens = torch.where(going, tokens, self.run.padding)
        chosen = law.gather(-1, tokens[:, None])[:, 0].double()
        self.logp = torch.where(going, self.logp + chosen, self.logp)
        if self.run.measures_certainty:
            self._certainty = torch.where(going, self._certainty + self_certainty(self.raw), self._certainty)
        self.lengths = self.lengths + going
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.grew = going
        self.finished = self.finished | (self.run.stopping_criteria(self.ids, None) if ends is None else ends)
        self._raw = self._law = None

    def select(self, index: Tensor) -> None:
        """Keep the rows with these numbers, in this order; a row may be kept several times, or dropped.

        The KV cache is reordered with its own method, as beam search reorders it.

        Args:
            index: numbers of rows, ``[new rows]``.
        """
        rows = len(self)
        for name in _OF_ROWS:
            setattr(self, name, selected(getattr(self, name), index, rows))
        cache = _cache_in(self._inputs)
        self._inputs = {
            name: value if value is cache else selected(value, index, rows) for name, value in self._inputs.items()
        }
        if cache is not None and self._read:
            reorder = getattr(self.run.model, "_reorder_cache", None)  # of models that need their own way
            if reorder is None:
                cache.reorder_cache(index)
            else:
                name = next(name for name, value in self._inputs.items() if value is cache)
                self._inputs[name] = reorder(cache, index)
        if self.run.checks is not None:
            self.run.checks.rows_moved = True
        self.run.cost.peak_rows = max(self.run.cost.peak_rows, len(self))

    def fork(self) -> Rows:
        """Return a copy with a KV cache of its own, for looking ahead."""
        other = copy.copy(self)
        cache = _cache_in(self._inputs)
        other._beside = (*self._beside, cache)
        other._inputs = {
            name: copy.deepcopy(value) if value is cache and cache is not None else value
            for name, value in self._inputs.items()
        }
        return other

    def prepare_rewinding(self) -> None:
        """Let the cache keep what `rewind` needs; call it before the first forward."""
        cache = _cache_in(self._inputs)
        self._unread = copy.deepcopy(cache)
        if cache is not None and cache.is_croppable and not any(cache.is_linear):
            cache.activate_past_recording()  # without it, a full sliding window cannot be rewound

    def mark(self) -> RowsMark:
        """Return what `rewind` goes back to. After `law` it holds the law too, so going back needs no forward."""
        cache = _cache_in(self._inputs)
        inputs = {name: value for name, value in self._inputs.items() if value is not cache or cache is None}
        return RowsMark({name: getattr(self, name) for name in _OF_ROWS}, inputs, self._read)

    def rewind(self, mark: RowsMark) -> None:
        """Go back to an earlier state of the rows: the later tokens are dropped from the KV cache.

        A cache that cannot drop its last tokens, such as a recurrent state, is filled again by the next forward.

        Args:
            mark: from `mark`, of the same rows; `select` must not have run since.
        """
        # Less than the mark was read where the cache is to be filled again.
        cache, kept = _cache_in(self._inputs), min(self._read, mark.read)
        names = [name for name, value in self._inputs.items() if value is cache and cache is not None]
        for name, value in mark.values.items():
            setattr(self, name, value)
        removed, self._read = self._read - kept, kept
        if cache is not None and removed:
            if can_crop(cache, removed):
                cache.crop(-removed)
            else:
                cache, self._read = copy.deepcopy(self._unread), 0
        self._inputs = {**mark.inputs, **dict.fromkeys(names, cache)}
        if self.run.checks is not None:
            self.run.checks.rows_moved = True

    def _law_by_place(self) -> Tensor:
        """Return the law where steps know the prompt of a row, which an encoder has read, by the place of the row.

        They get as many rows of each prompt, next to each other; copies of the first row fill empty places.
        """
        run = self.run
        counts = torch.bincount(self.prompt, minlength=run.prompts)
        copies = int(counts.max())
        order = self.prompt.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(self), device=order.device) - (counts.cumsum(0) - counts)[self.prompt[order]]
        place = self.prompt * copies + rank
        starts = run.ids.repeat_interleave(copies, dim=0)
        ids = torch.cat([starts, self.ids[:1, run.start :].expand(len(starts), -1)], dim=1)
        logits = self.raw[:1].repeat(len(starts), 1)
        ids[place], logits[place] = self.ids, self.raw
        return run.law(ids, logits)[place]

    def _forward(self) -> None:
        """Read the tokens that no forward has read yet."""
        run, first = self.run, not self._read
        cached = bool(self._inputs.get("use_cache")) and not first
        count = self.ids.shape[1] - self._read if cached else None
        prepared = run.model.prepare_inputs_for_generation(
            self.ids, next_sequence_length=count, is_first_iteration=first, **self._inputs
        )
        if self.hidden:
            prepared["output_hidden_states"] = True
        before = forwards_of(run.model)
        output = run.model(**prepared, return_dict=True)
        after = forwards_of(run.model)
        forwards = 1 if before is None or after is None else after - before
        run.count(len(self), count or self.ids.shape[1], _cache_in(output), *self._beside, forwards=forwards)
        encoded = run.model.config.is_encoder_decoder
        if self.hidden:
            self.last_hidden = (output.decoder_hidden_states if encoded else output.hidden_states)[-1]
        self._inputs = run.model._update_model_kwargs_for_generation(output, self._inputs, is_encoder_decoder=encoded)
        self._raw = output.logits[:, -1].to(copy=True, dtype=torch.float32, device=self.ids.device)
        self._read = self.ids.shape[1]


def _cache_in(mapping: Mapping[str, Any]) -> Any:
    """Return the cache among the arguments or in the output of a forward, also that of Mamba; None: there is none."""
    cache = cache_of(mapping)
    return mapping.get("cache_params") if cache is None else cache


def selected(value: Any, index: Tensor, rows: int) -> Any:
    """Return rows of a tensor whose first dimension is rows, or of every such tensor that an encoder computed."""
    if isinstance(value, Tensor):
        return value.index_select(0, index.to(value.device)) if value.ndim and len(value) == rows else value
    if isinstance(value, Mapping) and hasattr(value, "last_hidden_state"):  # what an encoder computed
        return type(value)(**{name: selected(part, index, rows) for name, part in value.items()})
    return value
