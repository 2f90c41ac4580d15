"""Files of small trained networks: weights as safetensors, everything else as JSON. Loading runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from logitkit.errors import FileFormatError
from logitkit.files import LONGEST_TEXT, check_readable, parse_json, read_bytes, replace_file, save_tensors

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
VERSION = 1
WEIGHTS, METADATA = "head.safetensors", "head.json"


def save_head(folder: str | Path, kind: str, network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write a network as ``head.safetensors`` and ``head.json`` into a folder.

    Args:
        folder: created when it does not exist.
        kind: name of the kind of head; `load_head` checks it.
        network: the network, whose state is written.
        metadata: everything else that is needed to rebuild and use the network, as JSON values.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replace_file(folder / WEIGHTS) as path:
        save_tensors(state, path)
    text = json.dumps({"kind": kind, "version": VERSION, **metadata}, indent=2, sort_keys=True)
    with replace_file(folder / METADATA) as path:
        path.write_text(text + "\n", encoding="utf-8")


def load_head(folder: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state and the metadata of a network.

    Args:
        folder: a folder that `save_head` wrote.
        kind: the expected kind of head.

    Returns:
        The weights by name, and the metadata.

    Raises:
        FileFormatError: a file is missing or damaged, has another kind or version, or holds NaN or infinite weights.
    """
    folder = Path(folder)
    try:
        metadata = parse_json(read_bytes(folder / METADATA, most=LONGEST_TEXT))
        check_readable(folder / WEIGHTS)
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise FileFormatError(
            f"{kind}: {folder} must hold {METADATA} and {WEIGHTS}, got {type(error).__name__}: {error}"
        ) from error
    stored = (metadata.get("kind"), metadata.get("version")) if isinstance(metadata, dict) else (None, None)
    if stored != (kind, VERSION):
        raise FileFormatError(
            f"{kind}: {folder} must hold a {kind} of version {VERSION}, got {stored[0]} of {stored[1]}"
        )
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in state.values()):
        raise FileFormatError(f"{kind}: the weights in {folder} must be finite, got NaN or infinity; train it again")
    return state, metadata


def load_weights(network: nn.Module, state: Mapping[str, Tensor], kind: str) -> None:
    """Load weights into a network that was built from the metadata, and set it to evaluation mode.

    Args:
        network: the network.
        state: its weights by name.
        kind: name of the kind of head, for the error message.

    Raises:
        FileFormatError: the weights do not fit the network.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{kind}: {WEIGHTS} must fit {METADATA}, got: {reason}") from error
    network.eval()


def build_network(
    make: Callable[[Any], tuple[Config, Network]], metadata: Mapping[str, Any], state: Mapping[str, Tensor], kind: str
) -> tuple[Config, Network]:
    """Build a network from the metadata of a file, and load its weights.

    Sizes are compared without memory for the weights before the network is built.

    Args:
        make: returns the configuration and the network of the entry ``config`` of the metadata.
        metadata: as `load_head` returns it.
        state: the weights by name.
        kind: name of the kind of head, for the error message.

    Raises:
        FileFormatError: the configuration is missing or false, or the weights do not fit the network.
    """
    try:
        content = metadata["config"]
        largest = sum(tensor.numel() for tensor in state.values())
        if any(isinstance(value, int) and not 0 <= value <= largest for value in content.values()):
            raise ValueError(f"a size that is negative or larger than the {largest} weights")
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in make(content)[1].state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in state.items()}:
            raise ValueError("weights of other names or sizes")
        config, network = make(content)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileFormatError(
            f"{kind}: {WEIGHTS} must fit {METADATA}, got {type(error).__name__}: {error}; train it again"
        ) from error
    load_weights(network, state, kind)
    return config, network
