"""Comparisons of tests in the child process of the sandbox: an object that equals everything passes no test."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable
from typing import Any

CHECK = "__logitkit_compare__"
_COMPARES = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")
_PLAIN = (int, float, complex, bool, str, bytes, bytearray, type(None), range)
_HOLDERS = (list, tuple, set, frozenset, dict)


class Comparisons(ast.NodeTransformer):
    """Replaces ``a < b`` by a call that compares two values, with one call for each operator of a chain."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Replace one comparison; ``is`` and chains keep their form."""
        self.generic_visit(node)
        name = type(node.ops[0]).__name__
        if len(node.ops) > 1 or name in ("Is", "IsNot"):
            return node
        call = ast.Call(ast.Name(CHECK, ast.Load()), [ast.Constant(name), node.left, *node.comparators], [])
        return ast.copy_location(call, node)


def comparison(namespace: dict[str, Any], *, strict: bool) -> Callable[[str, Any, Any], Any]:
    """Return a comparison that does not believe values which equal everything.

    With ``strict``, a value whose class compares by functions of the program never equals a value of another kind:
    such a class could say that it equals the expected value.
    """
    names = {"Eq": "eq", "NotEq": "ne", "Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge"}
    operations: dict[str, Callable[[Any, Any], Any]] = {
        name: getattr(operator, function) for name, function in names.items()
    }
    operations |= {"In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b}
    modules = sys.modules

    def own(value: Any) -> bool:
        """Return whether a class of the program says how ``value`` is compared."""
        for base in type(value).__mro__:
            for name in _COMPARES:
                function = base.__dict__.get(name)
                scope = getattr(function, "__globals__", None)
                if scope is namespace or (
                    scope is not None and getattr(modules.get(scope.get("__name__", "")), "__dict__", None) is not scope
                ):
                    return True
        return False

    def compare(name: str, left: Any, right: Any) -> Any:
        """Return the result of the comparison ``name``."""
        result = operations[name](left, right)
        if (name in ("NotEq", "NotIn")) == bool(result is True) or not isinstance(result, bool):
            return result
        strange = [_foreign(left), _foreign(right)]
        unknown = object()
        if any((one == unknown) is True for values in strange for one in values):
            return name in ("NotEq", "NotIn")
        if strict and any(map(own, strange[0])) != any(map(own, strange[1])):
            return name in ("NotEq", "NotIn")
        return result

    return compare


def _foreign(value: Any) -> list[Any]:
    """Return the values within ``value`` whose classes are not plain data."""
    found, waiting, seen = [], [value], set()
    while waiting:
        one = waiting.pop()
        if type(one) in _PLAIN or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            waiting += [*dict.keys(one), *dict.values(one)]
        elif isinstance(one, _HOLDERS):
            waiting += list(one)
        if type(one) not in _HOLDERS:
            found.append(one)
    return found
