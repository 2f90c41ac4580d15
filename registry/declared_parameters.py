"""The parameters of a processor class, collected from its ``__init__``, its ``bind`` and those of its base classes."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from logitkit.errors import PluginError
from logitkit.params import declared, rule_of

Fields = dict[str, tuple[Any, Any]]  # parameter: (annotation, default); Any and ... where there is none

LIBRARIES = ("torch", "typing", "typing_extensions")  # constructors of Module, Protocol and Generic take anything


def declared_parameters(factory: type[Any]) -> Fields:
    """Return the parameters that a chain may set, in the order in which it accepts them without their names.

    The attribute ``order`` of the class comes first, then the constructor, then ``bind``. A parameter of both takes
    its rule and its default from the one that states them, so ``bind`` need not repeat those of the constructor.

    Raises:
        PluginError: the constructor and ``bind`` contradict each other, ``order`` names an absent parameter, or
            the constructor takes ``**`` arguments that no base class names.

    >>> from typing import Annotated
    >>> from logitkit.params import number
    >>> class Soften:
    ...     def __init__(self, *, power: Annotated[float, number("exponent", gt=0)] = 0.5) -> None: ...
    ...     @classmethod
    ...     def bind(cls, binding, *, power): ...
    >>> declared_parameters(Soften)["power"][1]
    0.5
    """
    constructor = "__new__" if factory.__init__ is object.__init__ else "__init__"
    of_init, open_init = _inherited(factory, constructor)
    of_bind, _ = _inherited(factory, "bind")
    of_bind.pop("binding", None)
    if open_init and not hasattr(factory, "bind"):
        raise PluginError(
            f"the constructor must name its parameters, got {open_init}; name them, or give the Spec parameters=..."
        )
    either = {**of_bind, **of_init}
    for name in of_init.keys() & of_bind.keys():
        either[name] = _agreed(name, of_init[name], of_bind[name])
    first = getattr(factory, "order", ())
    for name in first:
        if name not in either:
            raise PluginError(f"the attribute order must name parameters ({', '.join(either)}), got {name!r}")
    # The whole signature gives the order: a stream of the constructor may have the place of a name that bind takes.
    in_signature = [name for name in inspect.signature(factory).parameters if name in either]
    return {name: either[name] for name in dict.fromkeys([*first, *in_signature, *of_init, *of_bind])}


def _inherited(factory: type[Any], method: str) -> tuple[Fields, str]:
    """Return the parameters of a method and, where it takes ``**`` arguments, those of the base classes' methods.

    A parameter without annotation takes the annotation that a base class gives it.

    Returns:
        The parameters, and the ``**`` argument that no further class explains, or "".
    """
    fields: Fields = {}
    variadic = ""
    for function in _definitions(factory, method):
        for name, (annotation, default) in declared(function).items():
            known, own_default = fields.get(name, (Any, default))
            fields[name] = (annotation if known is Any else known, own_default)
        names = inspect.signature(function).parameters.values()
        variadic = next((f"**{each.name}" for each in names if each.kind is each.VAR_KEYWORD), "")
        if not variadic:
            break
    return fields, variadic


def _definitions(factory: type[Any], method: str) -> Iterator[Callable[..., Any]]:
    """Yield the functions of this name in the class and its bases, the nearest first, without those of libraries."""
    for kind in factory.__mro__[:-1]:
        function = vars(kind).get(method)
        function = getattr(function, "__func__", function)  # a class method or static method holds its function
        if function is not None and str(getattr(function, "__module__", "")).partition(".")[0] not in LIBRARIES:
            yield function


def _agreed(name: str, of_init: tuple[Any, Any], of_bind: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the annotation and the default of a parameter of both.

    Raises:
        PluginError: both state a rule or a default, and these differ.
    """
    (rule, default), (bind_rule, bind_default) = of_init, of_bind
    if bind_default is not ... and default is not ... and not _same(default, bind_default):
        raise PluginError(
            f"{name} must have one default, got {default!r:.80} in __init__ and {bind_default!r:.80} in bind; "
            "remove the default of bind"
        )
    if Any not in (rule, bind_rule) and _contradict(rule, bind_rule):
        raise PluginError(
            f"{name} must have one rule, got {rule_of(rule)!r} in __init__ and {rule_of(bind_rule)!r} in bind; "
            "give the parameter of bind its plain type"
        )
    ruled = has_rule(rule) or bind_rule is Any or not has_rule(bind_rule)
    return (rule if rule is not Any and ruled else bind_rule, bind_default if default is ... else default)


def _same(one: Any, other: Any) -> bool:
    """Return whether two defaults are the same value; True and 1 are not, and nan is nan."""
    return one is other or (type(one) is type(other) and repr(one) == repr(other))


def has_rule(annotation: Any) -> bool:
    """Return whether an annotation carries a rule, made by `number`, `whole`, `option` or pydantic.

    >>> has_rule(float), has_rule(Annotated[float, FieldInfo(description="a share")])
    (False, True)
    """
    return any(isinstance(part, FieldInfo) for part in getattr(annotation, "__metadata__", ()))


def _contradict(rule: Any, bind_rule: Any) -> bool:
    """Return whether two annotations differ in their types, or both carry rules that differ.

    A plain type in ``bind`` repeats the type alone; it may call a number of either kind ``float``.
    """
    if has_rule(rule) and has_rule(bind_rule):
        return repr(rule) != repr(bind_rule)
    return _plain(rule) != _plain(bind_rule)


def _plain(annotation: Any) -> frozenset[Any]:
    """Return the alternatives of an annotation without their rules; ``int | float`` is ``float``, as for a checker."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = frozenset().union(*(_plain(part) for part in get_args(annotation)))
        return parts - {int} if float in parts else parts
    return frozenset([annotation])
