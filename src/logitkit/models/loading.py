"""Loads a model and its tokenizer from a known name, a folder, or the Hugging Face hub."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from logitkit.errors import DownloadError, ModelError, UnknownNameError
from logitkit.files import is_folder
from logitkit.models.catalog import KNOWN
from logitkit.models.installation import names, pull
from logitkit.models.sources import hub_reachable
from logitkit.progress import is_bar_shown


def load(name: str, *, like: Any = None) -> tuple[Any, Any]:
    """Load a model in evaluation mode, and its tokenizer.

    Args:
        name: a known name (downloaded when the model is not cached), a folder, or a hub id ``owner/name``.
        like: a model, or any object with ``dtype`` and ``device``, whose dtype and device the loaded model takes; None
            loads float32 on the CPU.

    Returns:
        The model and the tokenizer.

    Raises:
        UnknownNameError: the name is neither a known name, nor a folder, nor a hub id.
        DownloadError: the hub does not provide the model.
        ModelError: transformers cannot load the folder from safetensors files.

    >>> import tempfile
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> folder = tempfile.mkdtemp()
    >>> tiny_model().save_pretrained(folder)
    >>> _ = tiny_tokenizer().save_pretrained(folder)
    >>> model, tokenizer = load(folder)
    >>> model.dtype, model.training
    (torch.float32, False)
    """
    import torch

    dtype, device = (like.dtype, like.device) if like is not None else (torch.float32, "cpu")
    loaded: tuple[Any, Any] = _read_from(
        name, lambda place, local_only: _read_model(place, dtype, device, local_only=local_only)
    )
    return loaded


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model without the model.

    Args:
        name: a known name, a folder, or a hub id; see `load`.

    Raises:
        LogitkitError: the errors of `load`.

    >>> import tempfile
    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> folder = tempfile.mkdtemp()
    >>> _ = tiny_tokenizer().save_pretrained(folder)
    >>> load_tokenizer(folder).tokenize("ab")
    ['a', 'b']
    """
    from transformers import AutoTokenizer

    return _read_from(name, lambda place, local_only: AutoTokenizer.from_pretrained(place, local_files_only=local_only))


def _read_from(name: str, read: Callable[[str, bool], Any]) -> Any:
    """Call ``read`` with the folder or hub id of a name, and with whether only local files may be read."""
    local = name in KNOWN or is_folder(Path(name).expanduser())
    if not local and not _is_hub_id(name):
        raise UnknownNameError("model", name, names(), "give a known name, a folder, or a hub id owner/name")
    place = str(pull(name) if name in KNOWN else Path(name).expanduser())
    try:
        return read(place, local or not hub_reachable())
    except Exception as error:  # transformers, safetensors and tokenizers raise errors of many kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        if local:
            raise ModelError(f"{name}: transformers cannot load this folder: {reason}") from error
        if not isinstance(error, (OSError, ValueError)):
            raise ModelError(f"{name}: transformers cannot load this model: {reason}") from error
        raise DownloadError(
            f"{name}: the Hugging Face hub does not provide this model: {reason}; known models: {', '.join(names())}"
        ) from error


def _read_model(place: str, dtype: Any, device: Any, *, local_only: bool) -> tuple[Any, Any]:
    """Load a causal or an encoder-decoder model with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    config = AutoConfig.from_pretrained(place, local_files_only=local_only)
    model_class: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    # Only safetensors: other formats can execute code when they are read.
    with _bars_where_they_fit():
        model = model_class.from_pretrained(place, dtype=dtype, use_safetensors=True, local_files_only=local_only)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(place, local_files_only=local_only)


@contextlib.contextmanager
def _bars_where_they_fit() -> Iterator[None]:
    """Switch the progress bars of transformers off in the body where none is wanted.

    None is wanted where standard error is no terminal, and above a bar of ours, which would print every state of
    theirs as a line.
    """
    from transformers.utils import logging

    if (sys.stderr.isatty() and not is_bar_shown()) or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _is_hub_id(name: str) -> bool:
    """Return whether a name has the form ``owner/name``."""
    owner, slash, model = name.partition("/")
    return bool(slash and owner and model) and "/" not in model and owner[0] not in ".~"
