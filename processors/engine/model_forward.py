"""The forward of a model: errors that name the model, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        advice = "check the model's context length, device and dtype"
        if forward is not model:
            advice = f"{advice}, or call generate without compile_config and cache_implementation"
        raise ModelError(
            f"{type(model).__name__}: the forward must read the rows of a second stream, "
            f"got {type(error).__name__}: {str(error).rstrip('.')}; {advice}"
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


def forwarding_model(model: Any) -> Any:
    """Return the model whose forwards the ``generate`` of a model runs: itself, or the one that PEFT put adapters into.

    Args:
        model: a model of transformers, or a model of PEFT around one. Prompt learning, and adapters that begin at a
            token of the prompt, change the inputs of a forward; such a model stands for itself.

    >>> from logitkit.registry.laws import tiny_model
    >>> forwarding_model(tiny_model()) is tiny_model()
    True
    """
    adapters = getattr(model, "peft_config", None)
    if not hasattr(model, "get_base_model") or not isinstance(adapters, Mapping):
        return model
    configs = [adapters[name] for name in model.active_adapters if name in adapters]
    changed = any(one.is_prompt_learning or getattr(one, "alora_invocation_tokens", None) for one in configs)
    return model if changed or not configs else model.get_base_model()
