"""Checks of what the cache of a model can do, made once for each model before the first reader reads with it.

A forward that takes a cache may still ignore its state for chunks of several tokens (Jamba), ignore the cache (RWKV),
or read padding as text. A check runs the reader itself on a few tokens: rows that are fed in chunks, and rows that are
padded, must give the logits of one forward over the whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from logitkit.errors import LogitkitError, ModelError
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.transformers_api import CACHE, takes_cache

if TYPE_CHECKING:
    from logitkit.processors.engine.reader import Reader

# Largest difference of log-probabilities, as a share of their spread: rounding stays far below, faults are far above.
TOLERANCE = 0.02
TOLERANCE_16_BIT = 0.3
SMALLEST = -40.0  # nats; log-probabilities below are compared as equal


@dataclass(frozen=True)
class ReadingAbilities:
    """What a model's cache does exactly.

    Attributes:
        chunks: several tokens at once after cached tokens give the logits that one token at a time gives.
        padding: a row with masked padding on its left gives the logits of the row without padding.

    Example:
        >>> ReadingAbilities()
        ReadingAbilities(chunks=True, padding=True)
    """

    chunks: bool = True
    padding: bool = True


_KNOWN: WeakKeyDictionary[Any, ReadingAbilities] = WeakKeyDictionary()


def reading_abilities(model: Any, kind: type[Reader]) -> ReadingAbilities:
    """Return what the model's cache can do, checked with three short forwards at the first use of the model.

    A model in training mode is not checked, since dropout makes every forward different. A model without input
    embeddings, such as one over bytes, is not checked either: not every sequence of its ids is a text.

    Args:
        model: the model of a reader.
        kind: the class of the reader.

    Raises:
        ModelError: the forward takes no cache, fails on tokens alone, or does not continue from its cache.

    Example:
        >>> from logitkit.processors.engine import Reader
        >>> from logitkit.registry.laws import tiny_model
        >>> reading_abilities(tiny_model(), Reader)
        ReadingAbilities(chunks=True, padding=True)
    """
    checked = getattr(model, "checked_as", model)
    if checked not in _KNOWN:
        name = type(checked).__name__
        refuse_by_name(model, name)
        if getattr(checked, "training", False) or has_no_embeddings(checked):
            return ReadingAbilities()
        _KNOWN[checked] = _checked(without_hooks(model) if checked is model else model, kind, name)
    return _KNOWN[checked]


def has_no_embeddings(model: Any) -> bool:
    """Return whether a model states that its ids have no embeddings."""
    embeddings = getattr(model, "get_input_embeddings", None)
    try:
        return embeddings is not None and embeddings() is None
    except NotImplementedError:  # transformers finds no standard place; the model may have embeddings elsewhere
        return False


def refuse_inexact(model: Any, label: str, kind: type[Reader]) -> None:
    """Refuse a model that reads chunks or padded rows wrongly, for streams whose rows are rewritten.

    Args:
        model: the model.
        label: name of the stream, for the error.
        kind: the class of reader with which the model is checked.

    Raises:
        ModelError: names the model and the fault.
    """
    abilities = reading_abilities(model, kind)
    if not (abilities.chunks and abilities.padding):
        fault = "padded rows" if abilities.chunks else "several tokens after cached ones"
        raise ModelError(
            f"{label}: a model with another tokenizer must read chunks and padded rows exactly, since rows are "
            f"rewritten, got {type(model).__name__}, which reads {fault} wrongly; choose another model"
        )


def refuse_padding(model: Any) -> NoReturn:
    """Refuse own prompts of several lengths for a model that reads padded rows wrongly.

    Raises:
        ModelError: always.
    """
    raise ModelError(
        f"Reader: the prompts of a stream must have one length for {type(model).__name__}, which does not read padded "
        "rows exactly, got several lengths; bind one prompt at a time"
    )


def refuse_by_name(model: Any, name: str, owner: str = "Reader") -> None:
    """Refuse a model whose forward takes no cache of keys and values, or puts in tokens of its own.

    Args:
        model: the model.
        name: of its class.
        owner: what reads with the model, for the error.

    Raises:
        ModelError: names the model.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        method = getattr(model.active_peft_config.peft_type, "value", model.active_peft_config.peft_type)
        raise ModelError(
            f"{owner}: the model must read its tokens alone, got {name} with {method}, which adds virtual tokens at "
            "each forward; use a model without prompt learning (merged LoRA weights work)"
        )
    if not takes_cache(model):
        raise ModelError(
            f"{owner}: the forward of {name} must take {CACHE}, the cache of a reader; choose a model with a KV cache"
        )


def _checked(model: Any, kind: type[Reader], name: str) -> ReadingAbilities:
    """Compare chunks and padding with one forward over the whole row; see `reading_abilities`."""
    size = vocabulary_size(model)
    first, second, *tail = [(size // 2 + place) % size for place in range(1, 5)]
    short, padded = [[first, second]], [[size // 2, first, second], [first, second]]

    def read(own: Sequence[Sequence[int]], ends: Sequence[int], assumed: ReadingAbilities) -> Tensor:
        """Return log-probabilities after the last two prefixes of the last row, read up to each of ``ends``."""
        reader, rows = _reader_of(model, kind, own, tail, assumed)
        start = rows.shape[1] - len(tail)
        for end in ends[:-1]:
            reader(rows[:, : start + end])
        return reader.positions(rows, 2)[-1].log_softmax(-1)

    def exact(own: Sequence[Sequence[int]], ends: Sequence[int], assumed: ReadingAbilities) -> bool:
        return agree(read(own, ends, assumed), whole, model)

    everything, one_by_one = ReadingAbilities(), ReadingAbilities(chunks=False)
    whole = forwarded_for("Reader", name, lambda: read(short, [2], everything))
    if forwarded_for("Reader", name, lambda: exact(padded, [0, 2], everything)):
        return everything
    if exact(short, [0, 2], everything):
        return ReadingAbilities(padding=False)
    if not exact(short, [0, 2], one_by_one):
        raise ModelError(
            f"Reader: the forward of {name} must continue from its cache, got logits that differ from those of the "
            "whole row; choose a model with a KV cache"
        )
    return ReadingAbilities(chunks=False, padding=exact(padded, [0, 2], one_by_one))


def _reader_of(
    model: Any, kind: type[Reader], own: Sequence[Sequence[int]], tail: Sequence[int], assumed: ReadingAbilities
) -> tuple[Reader, Tensor]:
    """Return a reader of these own prompts, and rows of the generating model that continue them with ``tail``."""
    in_encoder = bool(model.config.is_encoder_decoder)
    starts = torch.zeros(len(own), 1, dtype=torch.long)
    blank = ("",) * len(own)
    prompts = Prompts(
        ids=starts,
        mask=torch.ones_like(starts),
        texts=blank,
        messages=(None,) * len(own),
        adds_specials=False,
        in_encoder=in_encoder,
    )
    rows = torch.cat([starts, torch.tensor([list(tail)] * len(own))], dim=1)
    return kind(model, own, prompts, abilities=assumed), rows


def forwarded_for(owner: str, name: str, read: Callable[[], Any]) -> Any:
    """Return the result of ``read``; an error inside the forward becomes one that names the model."""
    try:
        return read()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        got = str(error) if isinstance(error, LogitkitError) else f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{owner}: the forward of {name} must read tokens and continue from a cache ({CACHE}), got {got}; "
            "choose a model with a KV cache that reads text"
        ) from error


def agree(got: Tensor, want: Tensor, model: Any) -> bool:
    """Return whether two tensors of log-probabilities differ by little, measured against the spread of ``want``.

    Args:
        got, want: log-probabilities of the same shape, in nats.
        model: the model that computed them; half precision allows for more rounding.
    """
    tolerance = TOLERANCE_16_BIT if getattr(model, "dtype", None) in (torch.float16, torch.bfloat16) else TOLERANCE
    got, want = got.clamp_min(SMALLEST), want.clamp_min(SMALLEST)
    spread = (want - want.mean(-1, keepdim=True)).norm()
    return bool((got - want).norm() <= tolerance * spread + 1e-4 * want.numel() ** 0.5)


def without_hooks(model: Any) -> Any:
    """Return the model as an object whose forward runs uncompiled and without hooks, so that no hook sees a check."""
    return type(type(model).__name__, (_WithoutHooks,), {})(model)


class _WithoutHooks:
    """Calls the ``forward`` of a model; all other attributes are those of the model."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **inputs: Any) -> Any:
        forward = self._model.forward  # which may have been compiled by itself
        return getattr(forward, "_torchdynamo_orig_callable", forward)(**inputs)
