"""Comparisons of tests in the child process of the sandbox: an object that equals everything passes no test."""

from __future__ import annotations

import ast
import operator
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECK = "__logitkit_compare__"  # stands for the function in a syntax tree; `with_check` puts the function itself in
_COMPARES = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")
_PLAIN = (int, float, complex, bool, str, bytes, bytearray, type(None), range)
_HOLDERS = (list, tuple, set, frozenset, dict)
_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": lambda a, b: a in b,
    "NotIn": lambda a, b: a not in b,
}
_MADE_BY_CLASS_STATEMENT = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class Comparisons(ast.NodeTransformer):
    """Replaces ``a < b <= c`` by a call that compares the values in their order, as far as they are needed."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Replace a comparison; ``is`` alone, and chains that wait or assign, keep their form."""
        self.generic_visit(node)
        names = [type(operation).__name__ for operation in node.ops]
        kept = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
        chain = len(names) > 1
        if all(name in ("Is", "IsNot") for name in names) or (
            chain and any(isinstance(part, kept) for value in node.comparators for part in ast.walk(value))
        ):
            return node
        nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        values: list[ast.expr] = [ast.Lambda(nothing, value) if chain else value for value in node.comparators]
        call = ast.Call(ast.Constant(CHECK), [ast.Constant(" ".join(names)), node.left, *values], [])
        return ast.copy_location(call, node)


def with_check(code: types.CodeType, check: Callable[..., Any]) -> types.CodeType:
    """Return compiled code with the function in the place of its name; a variable could be given another value."""
    parts = [with_check(part, check) if isinstance(part, types.CodeType) else part for part in code.co_consts]
    return code.replace(co_consts=tuple(check if isinstance(part, str) and part == CHECK else part for part in parts))


def compiled(file: Path, folder: str, *, tests: types.CodeType | None) -> types.CodeType | None:
    """Compile a file, or return None if it does not exist.

    Comparisons of the tests go through `comparison`. Without a file of tests, the assertions at the top level
    of the program are its tests.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="surrogatepass")
    except FileNotFoundError:
        return None
    if tests is not None:
        return compile(text, str(file), "exec", dont_inherit=True)
    strict, tree = file.name == "tests.py", ast.parse(text)
    for statement in tree.body:
        if strict or isinstance(statement, ast.Assert):
            Comparisons().visit(statement)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the name of the check looks like a text that is called
        code = compile(ast.fix_missing_locations(tree), str(file), "exec", dont_inherit=True)
    return with_check(code, comparison(folder, strict=strict))


def comparison(folder: str, *, strict: bool) -> Callable[..., Any]:
    """Return a comparison that does not believe values which equal everything.

    With ``strict``, a value whose class the program wrote, and that says how it is compared, never equals a value of
    another kind: such a class could say that it equals the expected value.

    Args:
        folder: the folder of the program.
        strict: as above.
    """
    operations, contents, made = dict(_OPERATIONS), _contents_of(_PLAIN, _HOLDERS), _made_by(folder)

    def compare(names: str, left: Any, *rest: Any) -> Any:
        """Return the result of a chain of comparisons; each value but the first two is made when it is needed."""
        kinds = names.split(" ")
        result: Any = True
        for name, value in zip(kinds, rest, strict=True):
            right = value() if len(kinds) > 1 else value
            result = one(name, left, right)
            if len(kinds) > 1 and not result:
                return result
            left = right
        return result

    def one(name: str, left: Any, right: Any) -> Any:
        """Return the result of one comparison."""
        result, denied = operations[name](left, right), name in ("NotEq", "NotIn")
        if name in ("Is", "IsNot") or (isinstance(result, bool) and result is denied):
            return result  # it claims nothing
        values = [contents(left), contents(right)]
        own = [any(map(made, side)) for side in values]
        if not any(own) and not isinstance(result, bool):
            return result  # such as an array of truth values
        if bool(result) is denied:
            return result
        if any(map(equals_all, (value for side in values for value in side))) or (strict and own[0] != own[1]):
            return denied
        return result

    def equals_all(value: Any) -> bool:
        """Return whether a value says that it equals an object that nobody else has."""
        try:
            return bool(value == object())
        except Exception:  # it expects attributes, and compares them
            return False

    return compare


def _made_by(folder: str) -> Callable[[Any], bool]:
    """Return a function that says whether a class of the program says how a value is compared."""
    modules, compares, made_here = sys.modules, _COMPARES, _MADE_BY_CLASS_STATEMENT
    mro_of = type.__dict__["__mro__"].__get__
    names_of = type.__dict__["__dict__"].__get__

    def made(value: Any) -> bool:
        for base in mro_of(type(value)):
            if any(name in names_of(base) for name in compares) and not of_a_library(base):
                return True
        return False

    def of_a_library(base: type) -> bool:
        """Return whether a module outside the folder of the program has the class under its name."""
        if not base.__flags__ & made_here:
            return True
        module = modules.get(str(names_of(base).get("__module__") or base.__module__))
        if module is None or module is modules.get("__main__"):
            return False
        if str(getattr(module, "__file__", None) or "").startswith(folder):
            return False
        found: Any = module
        for part in base.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is base

    return made


def _contents_of(plain: tuple[type, ...], holders: tuple[type, ...]) -> Callable[[Any], list[Any]]:
    """Return a function that returns the values within a value whose classes are not plain data."""

    def contents(value: Any) -> list[Any]:
        found: list[Any] = []
        waiting: list[Any] = [value]
        seen: set[int] = set()
        while waiting:
            one = waiting.pop()
            if type(one) in plain or id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, dict):
                waiting += [*dict.keys(one), *dict.values(one)]
            elif isinstance(one, holders):
                waiting.extend(one)  # type: ignore[arg-type]
            if type(one) not in holders:
                found.append(one)
        return found

    return contents
