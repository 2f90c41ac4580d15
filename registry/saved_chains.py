"""Find chains that were saved beside a model."""

from __future__ import annotations

import re
from pathlib import Path

from logitkit.errors import FileFormatError, ParameterError, UnknownNameError


def saved_file(name: str) -> str:
    """Return the path, inside the folder of a model, of a chain that `Chain.save` writes.

    Raises:
        ParameterError: a name with other characters than letters, digits, ``_`` and ``-``.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ParameterError("chain", "name", "1 to 64 letters, digits, _ and -", name)
    return f"chains/{name}.yaml"


def find(model: str, file: str) -> Path:
    """Return the path of a file beside a model.

    Args:
        model: the folder, known name or hub id of a model.
        file: the path of the file inside the folder of the model.

    Raises:
        FileFormatError: the model has no such file; the error lists its neighbours.
        UnknownNameError: the model is unknown.
        DownloadError: the model cannot be downloaded.
    """
    from transformers.utils.hub import cached_file

    from logitkit import models

    if model in models.names():
        folder = models.pull(model)
    elif (folder := Path(model).expanduser()).is_dir():
        pass
    elif "/" in model and (found := cached_file(model, file, _raise_exceptions_for_missing_entries=False)):
        return Path(found)
    else:
        raise UnknownNameError("model", model, models.names(), "give a known name, a folder, or a hub id owner/name")
    path = folder / file
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise FileFormatError(
            f"chain: {model} must hold {file}, got no such file (saved there: {others}); "
            "write it with chain.save(folder)"
        )
    return path
