"""``logitkit models``."""

from __future__ import annotations

import json

from command_line import logitkit_command
from logitkit import models
from model_downloads import NAME


def test_list_as_json(fake_sources):
    """``list --json`` holds every known model and marks the cached ones."""
    models.pull(NAME, progress=False)
    listed = json.loads(logitkit_command("models", "list", "--json").stdout)
    assert [entry["name"] for entry in listed] == models.names()
    assert [entry["cached"] for entry in listed] == [True, False, False]


def test_list_as_table(fake_sources):
    """``list`` prints every known model."""
    result = logitkit_command("models", "list")
    assert all(name in result.stdout for name in models.names())


def test_pull_then_path(fake_sources):
    """``pull`` and ``path`` print the folder of the model."""
    assert logitkit_command("models", "pull", NAME, "--quiet").stdout.split() == [str(fake_sources / NAME)]
    assert logitkit_command("models", "path", NAME, "--verify").stdout.split() == [str(fake_sources / NAME)]


def test_path_of_a_model_not_cached_says_what_to_do(fake_sources):
    """The error for a model that is not cached names the command that downloads the model."""
    result = logitkit_command("models", "path", NAME)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"run: logitkit models pull {NAME}" in result.stderr


def test_unknown_name(fake_sources):
    """The error for an unknown name suggests the closest known name."""
    result = logitkit_command("models", "pull", "gemma-3")
    assert result.exit_code == 2
    assert "did you mean 'gemma-3-270m'" in result.stderr
