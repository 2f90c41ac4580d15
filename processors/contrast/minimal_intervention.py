"""MTI, minimal test-time intervention: guidance at uncertain steps, away from a short text behind the row.

arXiv:2510.13940, and the authors' released code. Where the entropy of a row is above a threshold, the row is guided as
in classifier-free guidance; the second distribution is that after the row and a short negative text, which is read
behind the KV cache of the generating model and thrown away. Departure: the released code returns log-probabilities for
rows below the threshold, which are left as they are here.
"""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option
from logitkit.processors.contrast.formulas import cfg
from logitkit.processors.engine.behind_rows import BehindRows
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.gate import own_measure
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import Stream, StreamLike, as_stream
from logitkit.processors.engine.trace import Trace


class MTI(LogitsProcessor):
    """Minimal test-time intervention, arXiv:2510.13940.

    Rows whose entropy is above the threshold become ``log q + scale (log p - log q)``, normalised, as `cfg` computes
    it; q is the distribution after the row and a negative text. Other rows are not changed, and a step without such a
    row costs nothing.

    Args:
        negative: the stream after each row and the text.
        scale: guidance scale, >= 0; at 1 the scores are returned unchanged.
        threshold: entropy in nats, >= 0; at infinity the scores are returned unchanged.
        trace: receives the entropy and the decision at each step.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> processor = MTI(negative=lambda rows: torch.tensor([[0.4, 0.6]]).log(), scale=2.0, threshold=0.6)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.6, 0.4]]).log()).exp()  # an entropy of 0.67 nats
        tensor([[0.7714, 0.2286]])
    """

    @checked
    def __init__(
        self,
        *,
        negative: StreamLike,
        scale: Annotated[float, number("guidance scale; above 1: away from the text", ge=0, neutral=1)] = 1.5,
        threshold: Annotated[
            float, number("guide rows whose entropy in nats is above this value", ge=0, neutral=math.inf, infinite=True)
        ] = 1.0,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.negative, self.scale, self.threshold, self.trace = as_stream(negative), scale, threshold, trace
        self._is_idle = is_neutral(scale, 1) or math.isinf(threshold)
        self.streams: tuple[Stream, ...] = () if self._is_idle else (self.negative,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        negative: Annotated[str, option("the text behind each row, without special tokens")] = "OUTPUT ERROR",
        scale: float,
        threshold: float,
    ) -> MTI:
        """Build the processor that reads the text behind the cache of the generating model.

        Raises:
            ParameterError: a text without tokens.
        """
        ids = binding.tokenizer(negative, add_special_tokens=False)["input_ids"]
        if not len(ids):
            raise ParameterError("mti", "negative", "a text with at least one token", negative)
        behind = BehindRows(binding, ids)
        if not binding.prompts.inputs:  # with images, a reader of the generating model reads the rows and the text
            binding.trace.readers["negative text behind the row"] = behind
        return cls(negative=behind, scale=scale, threshold=threshold, trace=binding.trace)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities in uncertain rows and the scores in the others, ``[rows, vocab]``."""
        if self._is_idle:
            return scores
        entropy = own_measure(scores, "entropy")
        fired = entropy > self.threshold
        if self.trace is not None:
            self.trace.note(gate=entropy, fired=fired)
            self.trace.count_fired("mti", fired)
        numbers = fired.nonzero()[:, 0]
        if not len(numbers):
            return scores
        if isinstance(self.negative, BehindRows):
            negative = self.negative.of_step(input_ids, scores, numbers)
        else:
            negative = self.negative(input_ids)[numbers]
        guided = cfg(scores[numbers], fit(negative, scores.shape[-1]), scale=self.scale).to(scores.dtype)
        return scores.index_copy(0, numbers, guided)
