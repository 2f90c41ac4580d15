"""``logitkit doctor``."""

from __future__ import annotations

import json

import pytest

from command_line import logitkit_command
from logitkit import Spec
from logitkit.registry import Plugin, Registry
from logitkit.registry.template_texts import TEXTS


def test_a_broken_plugin_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken plugin appears with its distribution and its traceback, and the exit status is 1."""
    assert logitkit_command("doctor").exit_code == 0
    broken = Registry([Plugin(name="bad", origin="dist-bad 1.2", error=ImportError("gone"))])
    monkeypatch.setattr("logitkit.cli.doctor.examined_registry", lambda time_limit, examples: broken)
    result = logitkit_command("doctor")
    assert result.exit_code == 1 and "ImportError: gone" in result.stdout and "dist-bad 1.2" in result.stdout
    assert json.loads(logitkit_command("doctor", "--json").stdout)[0]["error"]


def test_texts_of_the_template_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that works is no failure; its unedited texts are a note, as text and as data."""
    spec = Spec(name="mine", target="mine:Mine", **(dict(TEXTS) | {"formula": "p squared"}))
    found = Registry([Plugin(name="mine", origin="dist-mine 1.0", specs=(spec,))])
    monkeypatch.setattr("logitkit.cli.doctor.examined_registry", lambda time_limit, examples: found)
    result = logitkit_command("doctor")
    note = "mine: summary, source and failure must describe the processor, got the texts of the template; edit the Spec"
    assert result.exit_code == 0 and result.stderr == f"note: {note}\n"
    assert json.loads(logitkit_command("doctor", "--json").stdout)[0]["notes"] == [note]
