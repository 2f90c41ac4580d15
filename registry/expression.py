"""The text form of chains, ``"temperature(0.8) | uscd(rho=0.7)"``: parsed as Python, never evaluated."""

from __future__ import annotations

import ast
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from logitkit.errors import ChainError
from logitkit.registry import chain_document
from logitkit.registry.gate_option import GATE

LONGEST = 20_000  # characters of a chain
# CPython 3.11 counts the depth of a syntax tree for all threads together, and raises SystemError where two parse.
PARSING = threading.Lock()
Step = tuple[str, dict[str, Any]]


def read(text: str, order: Callable[[str], list[str]]) -> list[Step]:
    """Return the steps of a chain's text.

    Args:
        text: processors joined by ``|``; empty for none.
        order: returns the parameter names of a processor, in order, for arguments without a name.

    Raises:
        ChainError: the text is no chain; a caret marks the place of the mistake.

    >>> read("top_k(5) | cfg(scale=2.0)", lambda name: ["top_k"])
    [('top_k', {'top_k': 5}), ('cfg', {'scale': 2.0})]
    """
    text = " ".join(text.split("\n")).strip()
    if not text:
        return []
    if len(text) > LONGEST:
        raise ChainError(f"chain: a text must have at most {LONGEST} characters, got {len(text)}")
    try:
        with PARSING:
            tree = ast.parse(text, mode="eval").body
    except (RecursionError, MemoryError):
        raise ChainError("chain: a text must not be nested deeply or have hundreds of steps") from None
    except SyntaxError as error:
        mistake = f"{error.msg}; write name(parameter=value) | name()"
        raise _error_at(text, max((error.offset or 1) - 1, 0), mistake) from None
    except ValueError as error:  # null characters, lone surrogates
        raise ChainError(f"chain: a text must be valid Unicode without null characters, got: {error}") from None
    return [_step(text, node, order) for node in _split(tree)]


def write(steps: list[Step]) -> str:
    """Return steps as text that `read` turns back into the same steps.

    >>> write([("cfg", {"scale": 2.0, "gate": {"measure": "entropy", "above": 2.0}})])
    "cfg(scale=2.0, gate={'measure': 'entropy', 'above': 2.0})"
    """
    return " | ".join(
        f"{name}({', '.join(f'{key}={value!r}' for key, value in parameters.items())})" for name, parameters in steps
    )


def _split(node: ast.expr) -> list[ast.expr]:
    """Return the operands of ``a | b | c``, from left to right."""
    operands, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.BinOp) and isinstance(one.op, ast.BitOr):
            waiting += [one.right, one.left]
        else:
            operands.append(one)
    return operands


def _step(text: str, node: ast.expr, order: Callable[[str], list[str]]) -> Step:
    """Return one step: a name, or a call of a name with literal arguments."""
    if isinstance(node, ast.Name):
        order(node.id)
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _error_at(text, node.col_offset, "a processor must be written name(parameter=value)")
    name, parameters = node.func.id, {}
    names = order(name)
    for place, argument in enumerate(node.args):
        if place >= len(names):
            raise _error_at(text, argument.col_offset, f"{name} takes {len(names)} parameter(s)")
        parameters[names[place]] = _literal(text, argument)
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in parameters:
            mistake = "a parameter must be named" if keyword.arg is None else f"{keyword.arg} is given twice"
            raise _error_at(text, keyword.value.col_offset, mistake)
        parameters[keyword.arg] = _literal(text, keyword.value)
    return name, parameters


def _literal(text: str, node: ast.expr) -> Any:
    """Return the value of a literal: number, inf, text, list, dict, True, False or None."""
    try:
        return ast.literal_eval(_Infinities().visit(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _error_at(
            text, node.col_offset, "a value must be a literal: number, inf, 'text', list, True, False or None"
        ) from None


class _Infinities(ast.NodeTransformer):
    """Replaces the name ``inf`` by the number."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(math.inf), node) if node.id == "inf" else node


def _error_at(text: str, column: int, mistake: str) -> ChainError:
    """Return an error with a caret under the column of the mistake; of a long text, only the part around it."""
    start = max(0, column - 100)
    text, column = text[start : start + 200], column - start
    return ChainError(f"chain: {mistake}\n  {text}\n  {' ' * column}^")


def is_step(value: object) -> bool:
    """Return whether a value is the data form of one step: ``{"name": ..., "params": {...}, "gate": {...}}``."""
    known = {"name", "params", "gate"}
    return isinstance(value, Mapping) and isinstance(value.get("name"), str) and not set(value) - known


def from_data(data: Any) -> list[Step]:
    """Return the steps of the list form, or of a document that holds one.

    Raises:
        ChainError: anything but a list of ``{name, params, gate}``; the error shows the wrong entry. A document of
            another version.

    >>> from_data([{"name": "cfg", "params": {"scale": 2.0}, "gate": {"measure": "max", "below": 0.9}}])
    [('cfg', {'scale': 2.0, 'gate': {'measure': 'max', 'below': 0.9}})]
    """
    if isinstance(data, Mapping):
        data = chain_document.read(data)
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
        raise ChainError(f"chain: must be text or a list of {{name, params}}, got {data!r}")
    steps: list[Step] = []
    for number, step in enumerate(data):
        if not is_step(step):
            raise ChainError(
                f"chain: step {number} must be {{name: text, params: {{...}}, gate: {{...}}}}, got {step!r}"
            )
        params = step.get("params") or {}
        if not isinstance(params, Mapping):
            raise ChainError(f"chain: params of step {number} must be a mapping, got {params!r}")
        gate = {} if step.get("gate") is None else {GATE: step["gate"]}
        if gate and GATE in params:
            raise ChainError(f"chain: gate of step {number} must be given once, got it in params too; leave one out")
        steps.append((step["name"], {**params, **gate}))
    return steps
