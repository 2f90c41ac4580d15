"""The result of `logitkit.generate` as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from logitkit.processors.engine.trace import Trace


@dataclass(frozen=True, eq=False, kw_only=True)
class Generation:
    """Continuations of the prompts, and the trace of the call. Can be pickled, also when the call read a model.

    Attributes:
        texts: the continuation of each row, without its prompt and without special tokens.
        ids: token ids ``[rows, length]`` as transformers returns them, prompts included.
        trace: counters of the call, and every step if it was bound with ``trace=True``.

    >>> import logitkit, pickle
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> done = logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", chain="cfg(2.0)", max_new_tokens=3)
    >>> done.ids.shape, pickle.loads(pickle.dumps(done)).texts == done.texts
    (torch.Size([1, 5]), True)
    """

    texts: list[str]
    ids: Tensor
    trace: Trace

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields for pickling, with counts in place of the readers, which hold models."""
        counts: dict[str, Any] = {
            name: _Counts(reader.forwards, reader.tokens) for name, reader in self.trace.readers.items()
        }
        trace = dataclasses.replace(self.trace, readers=counts)
        return {"texts": self.texts, "ids": self.ids, "trace": trace}


@dataclass(frozen=True)
class _Counts:
    """Forward passes and tokens of a reader that no longer exists."""

    forwards: int
    tokens: int
