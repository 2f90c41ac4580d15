"""Read and write ``"temperature(0.8) | uscd(rho=0.7)"``: a Python expression, parsed and never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from logitkit.errors import ChainError

Step = tuple[str, dict[str, Any]]


def read(text: str, order: Callable[[str], list[str]]) -> list[Step]:
    """Read a chain's text.

    Args:
        text: processors joined by ``|``; empty means none.
        order: gives the parameter names of a processor, for arguments written without a name.

    Raises:
        ChainError: not a chain; shows the place with a caret.
    """
    text = " ".join(text.split("\n")).strip()
    if not text:
        return []
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise _at(text, max((error.offset or 1) - 1, 0), error.msg) from None
    return [_step(text, node, order) for node in _split(tree)]


def write(steps: list[Step]) -> str:
    """Write steps as text that `read` gives back."""
    return " | ".join(
        f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in steps
    )


def _split(node: ast.expr) -> list[ast.expr]:
    """The operands of ``a | b | c``, left to right."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_split(node.left), *_split(node.right)]
    return [node]


def _step(text: str, node: ast.expr, order: Callable[[str], list[str]]) -> Step:
    """One processor: a name, or a call of a name with literal arguments."""
    if isinstance(node, ast.Name):
        order(node.id)
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _at(text, node.col_offset, "a processor must be written name(parameter=value)")
    name, given = node.func.id, {}
    names = order(name)
    for place, argument in enumerate(node.args):
        if place >= len(names):
            raise _at(text, argument.col_offset, f"{name} takes {len(names)} parameter(s)")
        given[names[place]] = _literal(text, argument)
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in given:
            what = "a parameter must be named" if keyword.arg is None else f"{keyword.arg} is given twice"
            raise _at(text, keyword.value.col_offset, what)
        given[keyword.arg] = _literal(text, keyword.value)
    return name, given


def _literal(text: str, node: ast.expr) -> Any:
    """The value of a literal: number, text, list, dict, True, False, None."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _at(
            text, node.col_offset, "a value must be a literal: number, 'text', list, True, False or None"
        ) from None


def _at(text: str, place: int, what: str) -> ChainError:
    """An error that shows where."""
    return ChainError(f"chain: {what}\n  {text}\n  {' ' * place}^")


def is_step(value: object) -> bool:
    """Say whether this is the data form of one processor: ``{name, params}``."""
    return isinstance(value, Mapping) and isinstance(value.get("name"), str) and not set(value) - {"name", "params"}
