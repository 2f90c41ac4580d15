"""The name of a model on a page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from logitkit.inspection.model_name import model_name
from logitkit.models.cache import FORMAT, MANIFEST


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("", "SimpleNamespace"),
        ("owner/name", "owner/name"),
        ("/cache/hub/models--owner--a-name/snapshots/12ab", "owner/a-name"),
        ("/gone/my-model", "my-model"),
        ("/gone/my-model/checkpoint-500", "my-model/checkpoint-500"),
    ],
)
def test_a_path_is_not_shown(place: str, name: str) -> None:
    """A hub id stays, a path becomes a name, and a model made in memory has the name of its class."""
    assert model_name(SimpleNamespace(name_or_path=place)) == name


def test_a_cached_model_has_its_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest of a cached model names it; a folder with a file that only looks so has its own name."""
    folder = tmp_path / "anywhere"
    folder.mkdir()
    manifest = {"format": FORMAT, "name": "smollm2-135m", "source": "hub", "files": {}}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert model_name(SimpleNamespace(name_or_path=str(folder))) == "smollm2-135m"
    (folder / MANIFEST).write_text("{}")
    assert model_name(SimpleNamespace(name_or_path=str(folder))) == "anywhere"
    monkeypatch.chdir(folder)
    assert model_name(SimpleNamespace(name_or_path=".")) == "anywhere"
