"""Chain documents: the steps of a chain with the version of the form that they are written in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logitkit.errors import ChainError

VERSION = "1.0"
KEYS = {"version", "steps"}


def read(data: Mapping[str, Any]) -> Any:
    """Return the steps of a document.

    Raises:
        ChainError: other keys, or another version.

    >>> read({"version": "1.0", "steps": []}), read({"version": 1, "steps": []})  # JavaScript writes 1.0 as 1
    ([], [])
    >>> read({"version": "2.0", "steps": []})
    Traceback (most recent call last):
    logitkit.errors.ChainError: chain: version must be 1.0, got '2.0'; install the logitkit that wrote it
    """
    if set(data) != KEYS:
        raise ChainError(f"chain: must be text, a list of {{name, params}} or {{version, steps}}, got {dict(data)!r}")
    if isinstance(data["version"], bool) or data["version"] not in (VERSION, float(VERSION)):  # YAML: a number
        way_out = "install the logitkit that wrote it"
        raise ChainError(f"chain: version must be {VERSION}, got {data['version']!r}; {way_out}")
    return data["steps"]


def write(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the document of steps.

    >>> write([{"name": "top_p", "params": {"top_p": 0.9}}])
    {'version': '1.0', 'steps': [{'name': 'top_p', 'params': {'top_p': 0.9}}]}
    """
    return {"version": VERSION, "steps": steps}
