"""The result of `logitkit.generate` as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from logitkit.processors.engine.trace import Trace


@dataclass(frozen=True, eq=False, kw_only=True)
class Generation:
    """Continuations of the prompts, and the trace of the call, as plain data that can be pickled.

    A generation holds no model, no reader and no cache, so keeping many generations keeps nothing else alive.

    Attributes:
        texts: the continuation of each row, without its prompt and without special tokens.
        ids: token ids ``[rows, length]`` as transformers returns them, prompts included.
        weights: normalised log-weights of the rows of each prompt, nats, float64 ``[prompts, rows]``; None where the
            chain has no search. Rows that a search drew by their weights, and rows of a selector, have equal weights.
        trace: counters of the call, and every step if it was bound with ``trace=True``; a copy made by `Trace.plain`.

    >>> import logitkit, pickle
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> done = logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", chain="cfg(2.0)", max_new_tokens=3)
    >>> done.ids.shape, pickle.loads(pickle.dumps(done)).texts == done.texts
    (torch.Size([1, 5]), True)
    """

    texts: list[str]
    ids: Tensor
    trace: Trace
    weights: Tensor | None = None
