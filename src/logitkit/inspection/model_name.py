"""The name of a loaded model, as a page shows it: not the path of a cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from logitkit.errors import FileFormatError
from logitkit.files import is_folder
from logitkit.models.cache import read_manifest

HUB_CACHE = re.compile(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]")


def model_name(model: Any) -> str:
    """Return the known name of a model, its hub id, the name of its folder, or the name of its class.

    Args:
        model: a model; its ``name_or_path`` says where it was loaded from.

    >>> from types import SimpleNamespace
    >>> model_name(SimpleNamespace(name_or_path="/home/me/hub/models--owner--name/snapshots/0a1b"))
    'owner/name'
    >>> model_name(SimpleNamespace(name_or_path="owner/name"))
    'owner/name'
    """
    place = str(getattr(model, "name_or_path", "") or "")
    if match := HUB_CACHE.search(place):
        return "/".join(match.groups())
    if not place or not (is_folder(place) or Path(place).is_absolute()):
        return place or type(model).__name__
    folder = Path(place)
    try:
        return str(read_manifest(folder)["name"])
    except (FileFormatError, KeyError):
        folder = folder.absolute()
    step = re.fullmatch(r"checkpoint-\d+", folder.name)  # a trainer's folder: its parent has the name of the model
    return f"{folder.parent.name}/{folder.name}" if step else folder.name
