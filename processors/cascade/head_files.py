"""Small trained networks on disk: weights as safetensors, everything else as JSON. Loading runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from logitkit.errors import FileFormatError

VERSION = 1


def save(folder: str | Path, kind: str, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write a network as ``head.safetensors`` and ``head.json`` into a folder.

    Args:
        folder: made if it is not there.
        kind: what it is, checked when it is loaded.
        network: its state is written.
        facts: what else is needed to build and use it, as JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, _weights(folder)
    )
    told = {"kind": kind, "version": VERSION, **facts}
    _facts(folder).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(folder: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a network's state and facts.

    Raises:
        FileFormatError: not such a folder, another kind or version, truncated, or NaN among the weights.
    """
    folder = Path(folder)
    try:
        facts = json.loads(_facts(folder).read_text(encoding="utf-8"))
        state = load_file(_weights(folder))
    except (OSError, ValueError, SafetensorError) as error:
        raise FileFormatError(
            f"{kind}: {folder} must hold head.json and head.safetensors, got {type(error).__name__}: {error}"
        ) from error
    found = (facts.get("kind"), facts.get("version")) if isinstance(facts, dict) else (None, None)
    if found != (kind, VERSION):
        raise FileFormatError(f"{kind}: {folder} must hold a {kind} of version {VERSION}, got {found[0]} of {found[1]}")
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in state.values()):
        raise FileFormatError(f"{kind}: the weights in {folder} must be finite, got NaN or infinity; train it again")
    return state, facts


def into(network: nn.Module, state: Mapping[str, Tensor], kind: str) -> None:
    """Put a state into a network that was built from the facts.

    Raises:
        FileFormatError: weights and facts do not belong together.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{kind}: head.safetensors must fit head.json, got: {reason}") from error
    network.eval()


def _weights(folder: Path) -> Path:
    return folder / "head.safetensors"


def _facts(folder: Path) -> Path:
    return folder / "head.json"
