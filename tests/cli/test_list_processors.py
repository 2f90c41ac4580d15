"""``logitkit list``."""

from __future__ import annotations

import json

import pytest

import logitkit
from command_line import logitkit_command
from logitkit.registry import discovery


def test_every_processor_is_listed() -> None:
    """The table and the JSON list hold all names; in a pipe each processor is one line."""
    lines = logitkit_command("list").stdout.splitlines()
    assert sorted(line.split()[0] for line in lines[1:]) == logitkit.names(kind=None)
    assert [spec["name"] for spec in json.loads(logitkit_command("list", "--json").stdout)] == logitkit.names(kind=None)


def test_the_built_in_processors_are_listed_without_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery without entry points still finds the built-in processors."""
    monkeypatch.setattr(discovery, "entry_points", lambda group: [])
    assert discovery.discover().names(kind=None) == logitkit.names(kind=None)
