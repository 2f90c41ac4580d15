"""A step of a chain behind a gate: it acts on the rows on which the gate is open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.processors.engine.cross_tokenizer_reader import CrossTokenizerReader
from logitkit.processors.engine.gate import OWN_MEASURES, Gate
from logitkit.processors.engine.partial_rows import Part, parts_of
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import Stream
from logitkit.processors.engine.trace import Trace


class Gated(LogitsProcessor):
    """Any processor, applied to the rows on which a gate is open. A chain writes ``name(..., gate={...})``.

    Rows whose gate is shut keep their scores bit for bit. The processor is asked for the other rows only, and not at
    all where no gate is open, so its streams run no forward then. The tokens of such steps are read in one chunk when
    a gate opens. Where every gate is open, the result is that of the processor itself.

    Args:
        processor: the step; called with ``(input_ids, scores)`` of the open rows.
        gate: the condition. A measure of two streams reads the only second stream of the processor at every step.
        name: of the step, for the trace and for errors.
        prompts: the prompts of the call; None: the processor needs none.
        trace: receives the value of the measure and the decision at each step.

    Raises:
        ParameterError: a measure of two streams, and a processor with another number of streams than one, or with a
            stream of another vocabulary.

    Example:
        >>> import torch
        >>> from transformers import TopKLogitsWarper
        >>> step = Gated(TopKLogitsWarper(1), gate=Gate(measure="max", above=0.8), name="top_k")
        >>> step(torch.tensor([[0], [0]]), torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()).exp()
        tensor([[0.9000, 0.0000],
                [0.6000, 0.4000]])
    """

    def __init__(
        self,
        processor: Callable[[Tensor, Tensor], Any],
        *,
        gate: Gate,
        name: str,
        prompts: Prompts | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.processor, self.gate, self.name, self.prompts, self.trace = processor, gate, name, prompts, trace
        if gate.compares and not self._comparable():
            rule = f"one of {', '.join(map(repr, OWN_MEASURES))} for a step without exactly one second stream"
            raise ParameterError(f"{name}: gate", "measure", rule, gate.measure)

    def _comparable(self) -> bool:
        """Return whether the step has one second stream of the same vocabulary, or none at a neutral value."""
        if not hasattr(self.processor, "streams") or len(self.streams) > 1:
            return False
        return not any(isinstance(stream, CrossTokenizerReader) for stream in self.streams)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The second streams of the processor."""
        return tuple(getattr(self.processor, "streams", ()))

    @property
    def asks_by_gate(self) -> bool:
        """Whether second streams are asked only where the gate is open, which their logits do not decide."""
        return not self.gate.compares

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the processor's scores in open rows, and the given scores in the others, ``[rows, vocab]``."""
        if self.gate.compares and not self.streams:  # a neutral value: the processor returns its scores
            return scores
        second = fit(self.streams[0](input_ids), scores.shape[-1]) if self.gate.compares else None
        value = self.gate.value(scores, second)
        is_open = self.gate.opens(value)
        result = self._processed(input_ids, scores, is_open)
        if self.trace is not None:
            self.trace.note(gate=value, fired=is_open)
        return result

    def _processed(self, input_ids: Tensor, scores: Tensor, is_open: Tensor) -> Tensor:
        """Return the scores with the open rows processed; ``is_open`` is bool ``[rows]``."""
        index = is_open.nonzero()[:, 0]
        counted = nullcontext() if self.trace is None else self.trace.of_rows(self.name, index, len(is_open))
        with counted:
            if not len(index):
                return scores
            if len(index) == len(scores):
                return self.processor(input_ids, scores)  # type: ignore[no-any-return]
            part = Part(input_ids[index], input_ids, index)
            if self.prompts is not None:  # rows of equal prompts are told apart by their place in the batch
                self.prompts.part_index_memo.put(self.prompts.rows(input_ids)[index], part.rows)
            own = scores[index]
            with parts_of(self.streams, part):
                processed = self.processor(part.rows, own)
        if processed is own:
            return scores
        return scores.index_copy(0, index, processed.to(scores.dtype))
