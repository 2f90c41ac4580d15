"""Token ids and masks that a caller encoded, checked before a model or a processor reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import PromptError
from logitkit.processors.engine.padded_rows import padded_for
from logitkit.processors.engine.prompt_inputs import inputs_of_prompts, media_tokens
from logitkit.processors.model_facts import id_tuple, vocabulary_size


def read_encoding(model: Any, inputs: Mapping[str, Any], pad: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return the ids and the mask of a ``BatchEncoding`` on the device of the model, padded on the side that it needs.

    What the encoding holds besides them, such as images, is returned too.

    Args:
        model: the generating model.
        inputs: ``input_ids`` and ``attention_mask``; tensors, arrays or lists. Without a mask, the padding token of
            the model is padding unless it also ends a text, as in ``model.generate``. Further inputs of the model, by
            name.
        pad: id of the padding.

    Returns:
        Ids and mask, int64, ``[prompts, tokens]`` each; the mask is 0 on padding. The further inputs by name.

    Raises:
        PromptError: an input that the model does not take, further inputs with other padding, another shape or type,
            an id that the model does not know, a mask of other values than 0 and 1, or a prompt that is all padding.

    Example:
        >>> from logitkit.registry.laws import tiny_model
        >>> read_encoding(tiny_model(), {"input_ids": [[7, 0]], "attention_mask": [[1, 0]]}, pad=3)
        (tensor([[7]]), tensor([[1]]), {})
    """
    further = _further_inputs(model, inputs)
    in_encoder = bool(model.config.is_encoder_decoder)
    ids = _whole_numbers("input_ids", inputs["input_ids"])
    given = inputs.get("attention_mask")
    mask = _inferred_mask(model, ids) if given is None else _zeros_and_ones(given).to(ids.device)
    if ids.ndim != 2 or ids.shape != mask.shape or not ids.numel():
        raise PromptError(
            f"bind: input_ids and attention_mask must be [prompts, tokens], got {[*ids.shape]} and {[*mask.shape]}"
        )
    known = _known_ids(model)
    media = torch.tensor(list(media_tokens(model).values()), device=ids.device)  # a model may embed none of these
    wrong = ids[((ids < 0) | (ids >= known)) & ~torch.isin(ids, media)]
    if len(wrong):
        raise PromptError(
            f"bind: input_ids must be >= 0 and < {known}, the ids that the model embeds, got {int(wrong[0])}; "
            "encode the prompts with the tokenizer of the model"
        )
    if not bool(mask.any(-1).all()):
        raise PromptError("bind: every prompt must have a token, got a prompt that is all padding")
    behind, ahead = mask[:, 1:] < mask[:, :-1], mask[:, 1:] > mask[:, :-1]  # padding after text, before text
    moves = bool((ahead if in_encoder else behind).any())
    if further and (moves or not bool(mask.any(0).all())):  # the inputs may have an entry for each token
        side = "right" if in_encoder else "left"
        raise PromptError(
            f"bind: an encoding with {', '.join(further)} must be padded on the {side} to its longest prompt, "
            f"got other padding; encode with padding='longest' and padding_side={side!r}"
        )
    if moves:
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        ids, mask = padded_for(rows, pad, in_encoder=in_encoder)
    device = getattr(model, "device", ids.device)  # another engine's model may have none
    further = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in further.items()}
    return ids.to(device), mask.to(device), further


def _further_inputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs other than ids and mask.

    Raises:
        PromptError: ``input_ids`` are absent, or the model does not take an input.
    """
    if "inputs_embeds" in inputs or "input_ids" not in inputs:
        got = ", ".join(map(str, inputs)) or "nothing"
        raise PromptError(f"bind: encoded prompts must hold input_ids (not inputs_embeds), got {got}")
    return inputs_of_prompts(model, inputs)


def _tensor(name: str, values: Any) -> Tensor:
    """Return values as a tensor that holds data.

    Raises:
        PromptError: values of which torch makes no tensor, such as rows of unequal length or texts.
    """
    try:
        listed = isinstance(values, list | tuple) and bool(values)
        tensor = torch.stack(list(values)) if listed and isinstance(values[0], Tensor) else torch.as_tensor(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        why = " ".join(str(error).split())[:120]
        raise PromptError(
            f"bind: {name} must be whole numbers [prompts, tokens], each row of the same length, got "
            f"{type(values).__name__} ({why}); pad the rows: tokenizer(texts, padding=True, return_tensors='pt')"
        ) from error
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = "a tensor on the meta device" if tensor.is_meta else f"a tensor of layout {tensor.layout}"
        raise PromptError(f"bind: {name} must be a dense tensor with values, got {kind}")
    return tensor


def _whole_numbers(name: str, values: Any) -> Tensor:
    """Return values as int64.

    Raises:
        PromptError: numbers that are not of an integer type, or of an unsigned type that reaches beyond int64.
    """
    tensor = _tensor(name, values)
    kind = tensor.dtype
    if tensor.numel() and (kind in (torch.bool, torch.uint64) or kind.is_floating_point or kind.is_complex):
        got = str(kind).removeprefix("torch.")
        raise PromptError(
            f"bind: {name} must be whole numbers of an integer type such as int64, got {got}; "
            f"pass {name}.long() if these are token ids"
        )
    return tensor.long()


def _zeros_and_ones(values: Any) -> Tensor:
    """Return an attention mask as an int64 tensor of zeros and ones.

    Raises:
        PromptError: a value other than 0 and 1.
    """
    mask = _tensor("attention_mask", values)
    try:
        fits = bool(((mask == 0) | (mask == 1)).all())
    except NotImplementedError:  # torch compares no tensors of some types
        fits = False
    if not fits:
        raise PromptError("bind: attention_mask must be 1 for a token and 0 for padding, got other values")
    return mask.long()


def _inferred_mask(model: Any, ids: Tensor) -> Tensor:
    """Return the mask that ``model.generate`` infers: 0 on the padding token, unless it also ends a text."""
    pad, ends = model.generation_config.pad_token_id, id_tuple(model.generation_config.eos_token_id)
    return torch.ones_like(ids) if pad is None or int(pad) in ends else (ids != int(pad)).long()


def _known_ids(model: Any) -> int:
    """Return the number of ids that a model embeds; its number of logits where it has no table of embeddings."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        table = None
    count = getattr(table, "num_embeddings", None)
    return int(count) if count else vocabulary_size(model)
