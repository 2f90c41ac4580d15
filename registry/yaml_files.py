"""YAML from files of unknown origin, within limits."""

from __future__ import annotations

from typing import Any

import yaml

NODES = 100_000  # values of a file after its aliases are written out


def compose(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML text, None where the text is empty.

    Raises:
        yaml.YAMLError: the text is not YAML.
        ValueError: the text is nested too deeply, refers to itself, or has too many values with aliases written out.

    >>> compose("[1, 2]").value[0].value
    '1'
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _size(node, {}) > NODES:
            raise ValueError(f"more than {NODES} values, with aliases written out")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return node


def construct(node: yaml.Node | None) -> Any:
    """Return the plain data of nodes.

    Raises:
        yaml.YAMLError, ValueError: a value is not of the type that its form or tag says.

    >>> construct(compose("{a: [1, 2.5]}"))
    {'a': [1, 2.5]}
    """
    if node is None:
        return None
    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _size(node: Any, known: dict[int, int | None]) -> int:
    """Return the number of nodes, each alias counted as a copy of its anchor."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError("an alias refers to the value that holds it")
        return size
    known[id(node)] = None
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = size = 1 + sum(_size(child, known) for child in children)
    return size
