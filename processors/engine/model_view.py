"""A view of a model whose forwards carry out a `ForwardPlan`, for one `generate` call on a model that others use.

Every loop of transformers (greedy decoding, sampling, beam search, drafts) prepares the inputs of a forward with
``prepare_inputs_for_generation`` and then calls the model, or what ``get_compiled_call`` returns. The view overrides
these three methods, so each loop runs as transformers wrote it: tokens, seeds, stopping criteria, streamers and outputs
are its own. The plan widens what a forward reads and takes its output apart. A ``generate`` inside that of the view
drafts tokens for it with the first layers of the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from logitkit.processors.engine.drafts import is_draft
from logitkit.processors.engine.forward_plan import ForwardPlan
from logitkit.processors.engine.static_settings import LONGEST_CACHE


class _View:
    """The methods of a view; `model_view` puts them before the class of the model."""

    __slots__ = ()
    plan: ForwardPlan

    def generate(self, *args: Any, **settings: Any) -> Any:
        """Generate; drafts of the model's own first layers run without the plan."""
        if self.plan.drafts is None or not is_draft(settings):
            return super().generate(*args, **settings)  # type: ignore[misc]
        return self.plan.drafts.generate(self.plan.model, settings)

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        return self.plan.run_eagerly(inputs) if not args else self.plan.model(*args, **inputs)

    def get_compiled_call(self, compile_config: Any) -> Callable[..., Any]:
        """Return the model's compiled forward, which carries out the plan; its code is that of the model alone."""
        compiled = self.plan.model.get_compiled_call(compile_config)
        return lambda **inputs: self.plan.run(compiled, inputs)

    def _reorder_cache(self, past_key_values: Any, beam_idx: Any) -> Any:
        """Reorder the rows of all streams; beams and searches ask a model for this method before they ask the cache."""
        plan = self.plan
        index = plan.select(beam_idx) if past_key_values is plan.cache else beam_idx
        own = getattr(super(), "_reorder_cache", None)
        if own is not None:
            return own(past_key_values, index)
        past_key_values.reorder_cache(index)
        return past_key_values


@functools.cache
def _view_class(kind: type) -> type:
    """Return the class of the views of a class of models; `generate` reads names, signatures and defaults of it."""

    @functools.wraps(kind.prepare_inputs_for_generation)  # type: ignore[attr-defined]
    def prepare(self: Any, input_ids: Any, next_sequence_length: int | None = None, **settings: Any) -> Any:
        return self.plan.prepare(input_ids, next_sequence_length, settings)

    members = {"__slots__": ("plan",), "__module__": kind.__module__, "prepare_inputs_for_generation": prepare}
    members[LONGEST_CACHE] = _as_long_as_needed()
    return type(kind.__name__, (_View, kind), members)


def _as_long_as_needed() -> property:
    """Return a property under which `generate` makes a static cache for its own rows; the plan keeps the longest."""
    return property(lambda _: -1, lambda _, length: None)


def forwards_of(model: Any) -> int | None:
    """Return how many forwards a view of a model has run with its plan; None for a model that is no view."""
    return model.plan.forwards if isinstance(model, _View) else None


def model_view(plan: ForwardPlan) -> Any:
    """Return a view of the model of a plan; run its ``generate``.

    The view shares all attributes of the model: weights, hooks, compiled forwards, and what `generate` stores.

    Args:
        plan: the plan; its model is one with ``generate`` of transformers.

    >>> from logitkit.processors.engine import read_prompts
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "ab")
    >>> view = model_view(ForwardPlan(tiny_model(), prompts, []))
    >>> isinstance(view, type(tiny_model())), view.lm_head is tiny_model().lm_head
    (True, True)
    >>> view.generate(prompts.ids, max_new_tokens=2, do_sample=False).shape
    torch.Size([1, 4])
    """
    kind: Any = type(plan.model)
    view: Any = object.__new__(_view_class(kind))
    object.__setattr__(view, "__dict__", vars(plan.model))
    object.__setattr__(view, "plan", plan)
    return view
