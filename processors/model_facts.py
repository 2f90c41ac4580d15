"""Facts about a model that its configuration states: text configuration, context length, end tokens, vocabulary size.

Every other module asks here, so that two methods never disagree about where a text ends or how long it may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SAMPLED = 64  # numbers of a parameter that `is_same_model` compares, about


def text_config(model: Any) -> Any:
    """Return the configuration of the part of a model that decodes text.

    Args:
        model: a model of transformers, or its configuration.

    >>> from transformers import GPT2Config
    >>> text_config(GPT2Config(n_layer=3)).num_hidden_layers
    3
    """
    return getattr(model, "config", model).get_text_config(decoder=True)


def context_length(model: Any) -> int | None:
    """Return how many tokens a model can read, prompt and continuation together.

    Args:
        model: a model of transformers, or its configuration.

    Returns:
        ``max_position_embeddings`` of the text configuration; None where the configuration states no limit, as for
        models with relative positions (T5).

    >>> from transformers import GPT2Config, T5Config
    >>> context_length(GPT2Config(n_positions=128)), context_length(T5Config())
    (128, None)
    """
    limit = getattr(text_config(model), "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None  # XLNet states -1 for no limit


def vocabulary_size(model: Any) -> int:
    """Return the number of a model's logits; its tokenizer may know fewer ids, or more.

    Args:
        model: a model of transformers, or its configuration.

    >>> from transformers import GPT2Config
    >>> vocabulary_size(GPT2Config())
    50257
    """
    return int(text_config(model).vocab_size)


def logits_widths(model: Any) -> tuple[int, ...]:
    """Return the widths that the logits of a model may have: that of its output layer, and that of its configuration.

    >>> from logitkit.registry.laws import tiny_model
    >>> logits_widths(tiny_model())
    (272,)
    """
    try:
        weight = getattr(model.get_output_embeddings(), "weight", None)
    except (AttributeError, NotImplementedError):
        weight = None
    return tuple(dict.fromkeys([*([] if weight is None else [int(weight.shape[0])]), vocabulary_size(model)]))


def is_same_model(one: Any, other: Any) -> bool:
    """Return whether two models are one object, or copies of one model with the same weights in the same dtype.

    Copies are recognised by a sample of at most `SAMPLED` numbers of every parameter: a heuristic, which any kind of
    training or merging defeats, since it changes most numbers of a matrix.

    >>> import copy
    >>> from logitkit.registry.laws import tiny_model
    >>> is_same_model(tiny_model(), copy.deepcopy(tiny_model())), is_same_model(tiny_model(), tiny_model(1))
    (True, False)
    """
    if one is other:
        return True
    if type(one) is not type(other) or not hasattr(one, "named_parameters"):
        return False
    both = [dict(model.named_parameters()) for model in (one, other)]
    if not both[0] or both[0].keys() != both[1].keys():
        return False
    return all(_same_sample(weight, both[1][name]) for name, weight in both[0].items())


def _same_sample(one: Any, other: Any) -> bool:
    """Return whether two parameters have one shape and dtype, and equal numbers at evenly spaced places."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    step = max(1, one.numel() // SAMPLED)
    first, second = (weight.detach().reshape(-1)[::step].cpu() for weight in (one, other))
    return bool((first == second).all())


def end_tokens(model: Any, tokenizer: Any = None, *, settings: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """Return the ids of the tokens that end a text.

    Without a tokenizer these are exactly the tokens at which ``model.generate`` ends a row: ``eos_token_id`` of
    ``settings`` if it is there, else of ``model.generation_config``. The model's ``config`` is not asked, since
    ``generate`` does not ask it either. With a tokenizer, the tokenizer's end token is added as the first: training
    texts end with that token, whether ``generate`` stops at it or not. Ids beyond the model's vocabulary are kept.

    Args:
        model: a model of transformers; only its ``generation_config`` is read.
        tokenizer: the model's tokenizer; None leaves its end token out.
        settings: keyword arguments of this ``generate`` call; ``eos_token_id=None`` in them means no end token.

    Returns:
        Distinct ids; empty when neither the model nor the tokenizer has an end token.

    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, 9]))
    >>> tokenizer = SimpleNamespace(eos_token_id=9)
    >>> end_tokens(model), end_tokens(model, tokenizer), end_tokens(model, settings={"eos_token_id": 5})
    ((7, 9), (9, 7), (5,))
    """
    if settings is not None and "eos_token_id" in settings:
        stops = id_tuple(settings["eos_token_id"])
    else:
        stops = id_tuple(model.generation_config.eos_token_id)
    written = () if tokenizer is None else id_tuple(tokenizer.eos_token_id)
    return tuple(dict.fromkeys((*written, *stops)))


def id_tuple(stated: int | Iterable[int] | None) -> tuple[int, ...]:
    """Return token ids as a tuple, where a configuration states none, one or several.

    Args:
        stated: None, an id, or ids; for instance ``eos_token_id`` of a ``GenerationConfig``.

    >>> id_tuple(None), id_tuple(2), id_tuple([2, 3])
    ((), (2,), (2, 3))
    """
    if stated is None:
        return ()
    return (int(stated),) if isinstance(stated, int) else tuple(int(token) for token in stated)
