"""The ``generate`` of a model to which chains are attached; it stands in the model's own attributes until they end."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from types import MethodType
from typing import Any

_LOCK = threading.Lock()

# A function that generates for a chain: it takes the settings of `generate` by name.
Bound = Callable[[dict[str, Any]], Any]


class AttachedGenerate:
    """Stands as ``model.generate`` and hands every call to the chain that was attached last.

    A copy of the model, deep or pickled, has the ``generate`` of its class.

    Args:
        model: the model.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.attached = model, list[Bound]()
        self.replaced = vars(model).get("generate")  # a program may have put a generate of its own on this model
        self.plain = model.generate
        self.__doc__, self.__signature__ = self.plain.__doc__, inspect.signature(self.plain)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate with the chain that was attached last, or as the model does when the caller's chain is bound."""
        bound = self.attached[-1:]  # one read: another thread may detach at any time
        if not bound or _is_bound(kwargs):
            return self.plain(*args, **kwargs)
        given = self.__signature__.bind_partial(*args, **kwargs).arguments
        kinds = {name: parameter.kind for name, parameter in self.__signature__.parameters.items()}
        settings: dict[str, Any] = {}
        for name, value in given.items():
            settings |= value if kinds[name] is inspect.Parameter.VAR_KEYWORD else {name: value}
        return bound[0](settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return _generate_of_class, (self.model,)


def add(model: Any, bound: Bound) -> None:
    """Let ``model.generate`` call ``bound``, until it is removed or another one is added."""
    with _LOCK:
        generate = vars(model).get("generate")
        if not isinstance(generate, AttachedGenerate):
            generate = AttachedGenerate(model)
            model.generate = generate
        generate.attached.append(bound)


def remove(model: Any, bound: Bound) -> None:
    """Undo `add`, in any order; after the last one the model is as it was. Removing twice does nothing."""
    with _LOCK:
        generate = vars(model).get("generate")
        if not isinstance(generate, AttachedGenerate) or bound not in generate.attached:
            return
        generate.attached.remove(bound)
        if generate.attached:
            return
        if generate.replaced is None:
            del model.generate
        else:
            model.generate = generate.replaced


def plain_generate(model: Any) -> Callable[..., Any]:
    """Return the ``generate`` of a model, or of a view of it, without the chains that are attached."""
    generate = vars(model).get("generate") if hasattr(model, "__dict__") else None
    if not isinstance(generate, AttachedGenerate):
        return model.generate  # type: ignore[no-any-return]
    return generate.plain if generate.replaced is not None else _generate_of_class(model)


def _generate_of_class(model: Any) -> Callable[..., Any]:
    return MethodType(type(model).generate, model)


def _is_bound(settings: dict[str, Any]) -> bool:
    """Return whether the processors of a call are those of a bound chain already."""
    from logitkit.processors.engine.composite import Composite
    from logitkit.processors.engine.processor_list import ChainInGenerate

    given = settings.get("logits_processor") or []
    return any(isinstance(processor, (Composite, ChainInGenerate)) for processor in given)
