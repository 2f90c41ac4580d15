"""Files of the hidden states that `attribute_examples` captures, so that an interrupted capture can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from logitkit.errors import FileFormatError
from logitkit.files import check_readable, parse_json, read_bytes, replace_file, save_tensors

STATES = "states"  # folder of the captured states, until the head is trained
SETTINGS = "settings.json"
States = dict[str, Tensor]  # hidden [places, width], tokens [places], texts [places]


@dataclass(frozen=True)
class StateFiles:
    """The files of captured states: one for each batch, and the settings of the run.

    Attributes:
        folder: their folder.
    """

    folder: Path

    def start(self, own: Mapping[str, Any]) -> None:
        """Create the folder, or check that its states were captured with the same settings.

        Args:
            own: everything that the states depend on, as plain data.

        Raises:
            FileFormatError: they were not.
        """
        path = self.folder / SETTINGS
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with replace_file(path) as temporary:
                temporary.write_text(json.dumps(dict(own)) + "\n", encoding="utf-8")
            return
        try:
            stored = parse_json(read_bytes(path))
            differing = [name for name in own if stored[name] != own[name]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"train-attribute: {path} must hold the settings of a run, got {error!r}") from error
        if differing:
            raise FileFormatError(
                f"train-attribute: {self.folder} must hold states of the same {differing[0]} to be resumed, got "
                f"others; remove the folder, or name another one"
            )

    def read(self, number: int) -> States | None:
        """Return the states of a batch; None if they were not captured yet.

        Raises:
            FileFormatError: the file is damaged.
        """
        path = self._path(number)
        if not path.exists():
            return None
        try:
            check_readable(path)
            states = load_file(path)
            count = len(states["texts"])
            if states["hidden"].shape[:1] != (count,) or states["tokens"].shape != (count,):
                raise ValueError("tensors of different lengths")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise FileFormatError(
                f"train-attribute: {path} must hold captured states, got {error!r}; remove the file"
            ) from error
        return states

    def write(self, number: int, states: States) -> None:
        """Write the states of a batch."""
        with replace_file(self._path(number)) as temporary:
            save_tensors(states, temporary)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"
