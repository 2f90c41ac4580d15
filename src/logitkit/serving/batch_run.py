"""Generates a batch of rows with one chain, each as if it were alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import BatchEncoding, StoppingCriteria, StoppingCriteriaList

from logitkit.errors import LogitkitError
from logitkit.processors.engine.padded_rows import padded_for
from logitkit.processors.engine.prompts import pad_token
from logitkit.registry.bind import bind
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.serving.resources import Resources
from logitkit.serving.row import Prompt, Row
from logitkit.serving.row_sampler import RowSampler

T = TypeVar("T")
LOG = logging.getLogger(__name__)


class BatchRun:
    """Generates rows with a model.

    Args:
        model, tokenizer: the generating model and its tokenizer.
        resources: what chains may name.
    """

    def __init__(self, model: Any, tokenizer: Any, resources: Resources) -> None:
        self.model, self.tokenizer, self.resources = model, tokenizer, resources

    def bound(self, chain: Chain, prompts: Sequence[Prompt]) -> Call:
        """Return a chain bound to prompts of one kind and one template.

        Raises:
            LogitkitError: as `Chain.bind`, in the words of the processor.
        """
        first = prompts[0]
        values: Any = [prompt.value for prompt in prompts]
        if first.kind == "tokens":
            in_encoder = bool(self.model.config.is_encoder_decoder)
            pad = pad_token(self.tokenizer, self.model)
            ids, mask = padded_for([list(value) for value in values], pad, in_encoder=in_encoder)
            values = BatchEncoding({"input_ids": ids, "attention_mask": mask})
        return bind(
            self.resources.resolved(chain),
            self.model,
            self.tokenizer,
            values,
            trace=False,
            tokenizers=self.resources.tokenizers,
            resources=None,
            template=first.template or None,
            kept=self.resources.objects,
            load=self.resources.refuse_to_load,
            warn=False,
        )

    def run(self, rows: Sequence[Row]) -> None:
        """Generate rows until each is done. One that fails leaves the others as they are.

        Args:
            rows: with one chain, and prompts of one kind and one template; one row alone if the chain has a search.
        """
        try:
            contained(self._generate, rows)
            return
        except Exception as error:  # of a processor, a model or the device; which row it was is not known
            if len(rows) == 1:
                if not isinstance(error, LogitkitError):
                    LOG.exception("a text could not be generated")
                if not rows[0].done:
                    rows[0].fail(error)
                return
        for row in rows:  # here the error holds no tensors any more
            if not row.done:
                self.run([row])

    def _generate(self, rows: Sequence[Row]) -> None:
        """Bind the chain to the prompts and generate."""
        call = self.bound(rows[0].chain, [row.prompt for row in rows])
        removed = call.prompts.removed or (b"",) * len(rows)
        for row, bytes_removed in zip(rows, removed, strict=True):
            row.begin(self.tokenizer, bytes_removed)
        if call.search is not None:
            self._search(call, rows[0])
            return
        sampler = RowSampler(rows, call.prompts)
        watch = StepWatch(rows, sampler, call.settings.end_tokens)
        call.generate(
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            max_new_tokens=max(row.new_tokens for row in rows),
            logits_processor=[sampler],
            stopping_criteria=StoppingCriteriaList([watch]),
        )

    def _search(self, call: Call, row: Row) -> None:
        """Generate one row by the search of its chain, whose tokens are known when it ends."""
        assert call.search is not None
        call.search.seeds = [row.seed % 2**63]
        ids = call.generate(
            do_sample=call.search.search.samples or (call.search.search.draws and row.temperature > 0),
            num_beams=1,
            num_return_sequences=1,
            max_new_tokens=row.new_tokens,
            stopping_criteria=StoppingCriteriaList([Abandoned(row)]),
            stop_strings=list(row.stops) or None,
        )
        ends = call.settings.end_tokens()
        for token in call.settings.without_padding(call.ids(ids)[0, call.settings.start :].tolist()):
            if not row.done:
                row.add(token, None, ends=token in ends)
        if not row.done:  # the search ended before the limit for a reason of its own
            row.stop()


def contained(work: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns; a fault that is no `Exception` becomes one, so that the server lives on.

    Packages in Rust, such as those of grammars, raise their panics as `BaseException`.

    Raises:
        RuntimeError: names the type of such a fault.
    """
    try:
        return work(*arguments)
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


class StepWatch(StoppingCriteria):
    """Hands each new token to its row, and stops the rows that are done.

    Args:
        rows: the rows of the batch.
        sampler: has chosen the tokens.
        ends: returns the end tokens.
    """

    def __init__(self, rows: Sequence[Row], sampler: RowSampler, ends: Callable[[], Sequence[int]]) -> None:
        self._rows, self._sampler, self._ends = rows, sampler, ends

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return whether each row is done, ``[rows]``."""
        ends = self._ends()
        for number, (row, token) in enumerate(zip(self._rows, input_ids[:, -1].tolist(), strict=True)):
            if not row.done:
                row.add(token, self._sampler.scores_of(number), ends=token in ends)
        return torch.tensor([row.done for row in self._rows], device=input_ids.device)


class Abandoned(StoppingCriteria):
    """Stops a search when nobody waits for its text.

    Args:
        row: the row of the search.
    """

    def __init__(self, row: Row) -> None:
        self._row = row

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return whether each row of the search is to stop, ``[rows]``."""
        return torch.full((len(input_ids),), self._row.cancelled, device=input_ids.device)
