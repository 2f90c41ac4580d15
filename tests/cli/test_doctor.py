"""``logitkit doctor``."""

from __future__ import annotations

import json

import pytest

from command_line import logitkit_command
from logitkit.registry import Plugin, Registry


def test_a_broken_plugin_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken plugin appears with its distribution and its traceback, and the exit status is 1."""
    assert logitkit_command("doctor").exit_code == 0
    broken = Registry([Plugin(name="bad", origin="dist-bad 1.2", error=ImportError("gone"))])
    monkeypatch.setattr("logitkit.cli.doctor.examined_registry", lambda time_limit: broken)
    result = logitkit_command("doctor")
    assert result.exit_code == 1 and "ImportError: gone" in result.stdout and "dist-bad 1.2" in result.stdout
    assert json.loads(logitkit_command("doctor", "--json").stdout)[0]["error"]
