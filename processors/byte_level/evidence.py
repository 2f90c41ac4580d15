"""The probability that each model of an ensemble gives to the bytes written after the prompt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.byte_level.tokenizer import texts_of
from logitkit.processors.engine.prompts import Prompts

ROWS_KEPT = 512  # largest number of rows with cached evidence
Row = tuple[int, bytes]  # length of the prompt in bytes, and the text with its prompt


class Evidence:
    """Log-probability of the continuation of each row under each model: a function of the row alone.

    The evidence is a sum of normalised next-byte log-probabilities, so it is the log-probability with which the
    model's own ``generate`` writes the continuation. It is cached by text; a row that grows by one byte needs one
    more distribution, which `ByteModel` has cached.

    Args:
        models: byte models, the generating model first.
        prompts: the prompts of the call.

    >>> import logitkit
    >>> from logitkit.processors.byte_level import byte_tokenizer
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> model = ByteModel(tiny_model(), tiny_tokenizer())
    >>> prompts = logitkit.chain("byte_ensemble(models=[])").bind(model, byte_tokenizer(), "a").prompts
    >>> evidence = Evidence([model], prompts)(torch.tensor([list(b"ab")]))
    >>> abs(float(evidence[0, 0]) - float(model.logp([b"a"])[0, ord("b")])) < 1e-5
    True
    """

    def __init__(self, models: Sequence[ByteModel], prompts: Prompts) -> None:
        self.models, self.prompts = tuple(models), prompts
        starts = [text for (text,) in texts_of(prompts.ids, prompts.mask)]
        self._starts = [None if text is None else len(text) for text in starts]
        self._known: OrderedDict[Row, tuple[float, ...]] = OrderedDict()

    def __reduce__(self) -> Any:
        raise ModelError("byte_ensemble: cannot be pickled, it holds models; pickle the chain and bind it again")

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return log-probabilities in nats, float64 ``[models, rows]``; 0 for rows that have ended.

        Args:
            input_ids: rows that begin with a prompt of the call, ``[rows, length]``.

        Raises:
            PromptError: a row begins with none of the prompts.
        """
        index = self.prompts.rows(input_ids).cpu()
        mask = torch.ones_like(input_ids)
        mask[:, : self.prompts.width] = self.prompts.mask.to(mask.device)[index.to(mask.device)]
        texts = [text for (text,) in texts_of(input_ids, mask)]
        starts = [self._starts[number] for number in index.tolist()]
        rows = [
            None if text is None or start is None else (start, text) for text, start in zip(texts, starts, strict=True)
        ]
        self._extend([row for row in rows if row is not None])
        zeros = (0.0,) * len(self.models)
        values = [zeros if row is None else self._known[row] for row in rows]
        while len(self._known) > max(ROWS_KEPT, 2 * len(rows)):
            self._known.popitem(last=False)
        return torch.tensor(values, dtype=torch.float64, device=input_ids.device).T

    def _extend(self, rows: Sequence[Row]) -> None:
        """Compute the evidence of rows from their longest beginnings with known evidence."""
        missing: dict[Row, None] = {}
        for start, text in rows:
            end = len(text)
            while end > start and (start, text[:end]) not in self._known and (start, text[:end]) not in missing:
                end -= 1
            missing |= dict.fromkeys((start, text[:longer]) for longer in range(end + 1, len(text) + 1))
            if end == start:
                self._known.setdefault((start, text[:end]), (0.0,) * len(self.models))
        if missing:
            before = [text[:-1] for _, text in missing]
            last = torch.tensor([text[-1] for _, text in missing])[:, None]
            gains = torch.cat([model.logp(before).gather(1, last) for model in self.models], dim=1).tolist()
            for (start, text), gain in zip(missing, gains, strict=True):  # each text comes before its extensions
                total = self._known[start, text[:-1]]
                self._known[start, text] = tuple(a + b for a, b in zip(total, gain, strict=True))
        for row in rows:
            self._known.move_to_end(row)
