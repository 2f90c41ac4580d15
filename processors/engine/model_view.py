"""A view of a model with forward hooks of its own, for one `generate` call on a model that other threads use."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

# The dictionaries in which torch.nn.Module keeps its forward hooks and their options.
HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def model_view(model: Any) -> Any:
    """Return a shallow copy of a model: the same weights and submodules, and forward hooks of its own.

    A hook that is registered on the copy runs in forwards of the copy only. Registering a hook on the model itself
    would change the forwards of every thread that uses the model. The copy starts with the hooks of the model.

    Args:
        model: a `torch.nn.Module`.

    >>> from logitkit.registry.laws import tiny_model
    >>> view = model_view(tiny_model())
    >>> hook = view.register_forward_hook(lambda *_: None)
    >>> len(view._forward_hooks) - len(tiny_model()._forward_hooks), view.lm_head is tiny_model().lm_head
    (1, True)
    """
    view = object.__new__(type(model))
    vars(view).update(vars(model))
    for name in HOOKS:
        vars(view)[name] = OrderedDict(vars(model)[name])
    return view
