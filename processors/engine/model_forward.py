"""The forward of a model: errors that name the model, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from logitkit.errors import LogitkitError, ModelError


def forwarded(model: Any, **inputs: Any) -> Any:
    """Return the output of a model's forward.

    Args:
        model: a model of transformers.
        inputs: keyword arguments of its forward.

    Raises:
        ModelError: the forward raises; the message names the model, and the cause is chained. Exhausted memory and
            errors of logitkit pass as they are.

    Example:
        >>> import torch
        >>> from logitkit.registry.laws import tiny_model
        >>> forwarded(tiny_model(), input_ids=torch.tensor([[1, 2]])).logits.shape
        torch.Size([1, 2, 272])
    """
    return forwarded_by(model, model, **inputs)


def forwarded_by(forward: Callable[..., Any], model: Any, **inputs: Any) -> Any:
    """Return the output of a forward that stands for a model's own, such as its compiled one.

    Args:
        forward: what runs.
        model: the model whose forward it is, for errors.
        inputs: keyword arguments of the forward.

    Raises:
        ModelError: as in `forwarded`.

    Example:
        >>> import torch
        >>> from logitkit.registry.laws import tiny_model
        >>> forwarded_by(tiny_model().forward, tiny_model(), input_ids=torch.tensor([[1, 2]])).logits.shape
        torch.Size([1, 2, 272])
    """
    try:
        return forward(**inputs)
    except (LogitkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__}: the forward must read the rows of a second stream, "
            f"got {type(error).__name__}: {error}; check the model's context length, device and dtype"
        ) from error


def is_compiled(model: Any) -> bool:
    """Return whether a model was compiled: as a whole, by its ``compile``, or its ``forward`` alone.

    >>> from logitkit.registry.laws import tiny_model
    >>> is_compiled(tiny_model())
    False
    """
    return (
        hasattr(model, "_orig_mod")
        or getattr(model, "_compiled_call_impl", None) is not None
        or hasattr(getattr(model, "forward", None), "_torchdynamo_orig_callable")
    )
