"""Chain files: reads and writes the data of a chain as YAML or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from logitkit.errors import FileFormatError
from logitkit.files import parse_json, read_text, replace_file
from logitkit.registry import chain_document
from logitkit.registry.yaml_files import compose, construct


def read(path: str | Path) -> Any:
    """Return what a ``.yaml``, ``.yml`` or ``.json`` file holds; an empty list for an empty file.

    Raises:
        FileFormatError: another ending, a file that cannot be read, or content that is not YAML or JSON.
    """
    path = _checked(path)
    try:
        text = read_text(path)
        data = parse_json(text) if path.suffix == ".json" else construct(compose(text))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise FileFormatError(f"chain file: {path} must be a file that can be read, got: {why}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise FileFormatError(f"chain file: {path} must be {path.suffix[1:]}, got: {error}") from error
    return [] if data is None else data


def write(path: str | Path, steps: list[dict[str, Any]]) -> None:
    """Write the steps of a chain, with the version of their form, to a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        FileFormatError: another ending.
    """
    path, data = _checked(path), chain_document.write(steps)
    text = json.dumps(data, indent=2) + "\n" if path.suffix == ".json" else yaml.safe_dump(data, sort_keys=False)
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _checked(path: str | Path) -> Path:
    """Return the path of a chain file.

    Raises:
        FileFormatError: an ending other than ``.yaml``, ``.yml`` and ``.json``.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise FileFormatError(f"chain file: name must end in .yaml, .yml or .json, got {str(path)!r}")
    return path
