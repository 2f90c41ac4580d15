"""Drafts of assisted decoding under a chain: tokens that a cheaper model proposes and the generating model checks.

transformers hands the processors of a call to the ``generate`` of the assistant too, and asks them again, about every
place of the chunk in which the generating model checks the drafts. A second stream would then be read at every drafted
token, by a forward of its own. The steps that read second streams are therefore left out of drafts, and the streams are
read for the whole chunk at once: as rows of the generating model's forward, or in a chunk of their own. An assistant
with another vocabulary drafts without the chain, whose processors know nothing of its tokens.

The result stays that of the whole chain, whatever a draft leaves out. Greedily a draft is kept only where it is the
chain's own choice. With sampling let ``q`` be the law of a draft and ``p`` that of the chain, at one place behind one
prefix. transformers keeps a draft ``x`` with probability ``min(1, p(x) / q(x))``, and draws from the law proportional
to ``max(p - q, 0)`` otherwise (Leviathan et al., arXiv:2211.17192, algorithm 1 and appendix A.1). The token is then
``x`` with probability ``min(p(x), q(x)) + r max(p(x) - q(x), 0) / s``, where ``r = 1 - sum(min(p, q))`` is the
probability of a rejection and ``s = sum(max(p - q, 0))``. Both are equal, because ``p = min(p, q) + max(p - q, 0)``
sums to 1, so that the token has probability ``p(x)``. This asks one thing of ``q``: that the scores by which
transformers checks a draft are those that it was drawn from. They are the scores of the assistant's own ``generate``,
behind the processors that it was given. A setting that gives this up, ``assistant_ensemble_weight``, does so here too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor

from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.cross_tokenizer_reader import CrossTokenizerReader
from logitkit.processors.engine.processor_list import ChainInGenerate
from logitkit.processors.engine.reader import Reader


class Drafts:
    """Runs the ``generate`` of assistants for one call.

    Args:
        composite: the chain of the call.
        generate: returns the ``generate`` of a model.
        shares_tokens: whether the assistant has the vocabulary of the generating model.

    Attributes:
        left_out: places of the steps that drafts leave out: those that declare second streams.
        count: drafts so far.
    """

    def __init__(
        self, composite: Composite, generate: Callable[[Any], Callable[..., Any]], *, shares_tokens: bool = True
    ) -> None:
        self.composite, self.shares_tokens, self.count, self._generate = composite, shares_tokens, 0, generate
        parts = composite.parts
        self.left_out = frozenset(place for place, (_, part) in enumerate(parts) if getattr(part, "streams", ()))
        self._readers = [one for one in composite.streams if isinstance(one, Reader | CrossTokenizerReader)]

    def generate(self, assistant: Any, settings: dict[str, Any]) -> Any:
        """Return what the ``generate`` of an assistant returns with these settings, and expect its drafts."""
        processors = self.processors(settings.get("logits_processor") or ())
        output = self._generate(assistant)(**settings | {"logits_processor": processors})
        self.count += 1
        if self.shares_tokens:
            self._expect(output.sequences.to(self.composite.prompts.ids.device))
        return output

    def processors(self, given: Iterable[Any]) -> list[Any]:
        """Return the processors of a draft for those of the call."""
        own = {id(one) for one in given if isinstance(one, ChainInGenerate) and one.composite is self.composite}
        drafting = [DraftingChain(self.composite, self.left_out)] if self.shares_tokens else []
        kept = ([one] if id(one) not in own else drafting for one in given)
        return [one for part in kept for one in part]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Report, behind this block, which steps the drafts left out; streams expect no drafts any more."""
        try:
            yield
        finally:
            self._expect(None)
            if self.count and (self.left_out or not self.shares_tokens):
                trace, parts = self.composite.trace, self.composite.parts
                names = [parts[place][0] for place in sorted(self.left_out)] if self.shares_tokens else ["the chain"]
                reason = f"{trace.fusion.reason}; drafts leave out {' and '.join(names)}"
                trace.fusion = replace(trace.fusion, reason=reason)

    def _expect(self, drafts: Tensor | None) -> None:
        """Let second streams read these rows in one chunk when a prefix of them is asked for; None: no rows."""
        for reader in self._readers:
            reader.expect(drafts)


class DraftingChain(LogitsProcessor):
    """A chain as the ``generate`` of an assistant calls it: without the steps that read second streams.

    Args:
        composite: the chain.
        left_out: places of the steps that are left out.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import Prompts, Trace
        >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
        ...                   adds_specials=False)
        >>> from transformers import TopKLogitsWarper
        >>> chain = Composite([("top_k", TopKLogitsWarper(1))], prompts=prompts, trace=Trace())
        >>> DraftingChain(chain, {0})(prompts.ids, torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    supports_continuous_batching = False

    def __init__(self, composite: Composite, left_out: Iterable[int]) -> None:
        self.composite, self.left_out = composite, frozenset(left_out)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores after the steps of drafts, ``[rows, vocab]``."""
        with self.composite.leaving_out(self.left_out):
            return self.composite.in_generate(input_ids, scores)


class _Assistant:
    """The method of a view of an assistant; `assistant_view` puts it before the class of the model."""

    __slots__ = ()
    drafts: Drafts
    assistant: Any

    def generate(self, **settings: Any) -> Any:
        """Draft tokens."""
        return self.drafts.generate(self.assistant, settings)


@functools.cache
def _view_class(kind: type) -> type:
    """Return the class of the views of a class of assistants; transformers reads its name."""
    members = {"__slots__": ("assistant", "drafts"), "__module__": kind.__module__}
    return type(kind.__name__, (_Assistant, kind), members)


def assistant_view(assistant: Any, drafts: Drafts) -> Any:
    """Return a view of an assistant for ``assistant_model=``, whose ``generate`` drafts under the chain of a call.

    The view shares all attributes of the model, which stays as it is.

    Args:
        assistant: a model with ``generate`` of transformers.
        drafts: what its ``generate`` does.

    >>> import logitkit
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> call = logitkit.chain("cfg(2.0) | top_k(5)").bind(tiny_model(), tiny_tokenizer(), "ab")
    >>> view = assistant_view(tiny_model(1), Drafts(call.composite, lambda model: model.generate))
    >>> isinstance(view, type(tiny_model(1))), view.lm_head is tiny_model(1).lm_head, view.drafts.left_out
    (True, True, frozenset({0}))
    """
    kind: Any = type(assistant)
    view: Any = object.__new__(_view_class(kind))
    object.__setattr__(view, "__dict__", vars(assistant))
    object.__setattr__(view, "assistant", assistant)
    object.__setattr__(view, "drafts", drafts)
    return view


def is_draft(settings: dict[str, Any]) -> bool:
    """Return whether settings of ``generate`` are those of a draft.

    >>> is_draft({"do_sample": False})
    False
    """
    return bool(getattr(settings.get("generation_config"), "is_assistant", False))
