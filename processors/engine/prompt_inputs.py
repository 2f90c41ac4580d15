"""Inputs of a model besides tokens, such as images: which of them a prompt carries, and which streams can read them.

The rule: what is bound with the prompts reaches the generating model and every second stream that reads the prompts of
the call. A stream that cannot read it is refused by name. ``token_type_ids``, which many tokenizers add, are left out
for a model whose forward does not take them; nothing else is ever left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModeError, PromptError
from logitkit.processors.transformers_api import CACHE_NAMES

TOKENS = ("input_ids", "attention_mask")  # what makes a prompt
# One entry for each token; a prompt may have them without any other medium than text.
ALIGNED = ("token_type_ids", "mm_token_type_ids", "position_ids")
# Arguments of a forward that belong to one generate, not to its prompts.
OF_GENERATE = ("labels", "use_cache", "cache_position", "logits_to_keep", "encoder_outputs", *CACHE_NAMES)
MEDIA = ("image", "video", "audio", "speech")


def input_names(model: Any) -> set[str]:
    """Return the names of the inputs that `generate` hands to a model.

    Args:
        model: a model of transformers, one wrapped by PEFT, or an object without ``forward``, which takes none.

    >>> from logitkit.registry.laws import tiny_model
    >>> sorted(input_names(tiny_model()) & {"position_ids", "pixel_values"})
    ['position_ids']
    """
    model = getattr(model, "prepared_by", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    methods = (getattr(model, name, None) for name in ("forward", "prepare_inputs_for_generation"))
    return {name for method in methods if method is not None for name in inspect.signature(method).parameters}


def belongs_to_generate(name: str) -> bool:
    """Return whether an input of a forward belongs to one `generate`, not to its prompts.

    >>> belongs_to_generate("decoder_input_ids"), belongs_to_generate("pixel_values")
    (True, False)
    """
    return name in OF_GENERATE or name.startswith("decoder_")


def inputs_of_prompts(model: Any, encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of an encoding besides its tokens, as tensors where they are numbers.

    Args:
        model: the generating model, or the model of the stream that will read the encoding.
        encoding: encoded prompts, for instance what a processor of transformers returns for texts and images.

    Raises:
        PromptError: the model does not take an input, or an input belongs to `generate`.

    >>> from logitkit.registry.laws import tiny_model
    >>> inputs_of_prompts(tiny_model(), {"input_ids": [[7, 8]], "token_type_ids": [[0, 0]], "position_ids": [[4, 5]]})
    {'position_ids': tensor([[4, 5]])}
    """
    given = {str(name): value for name, value in encoding.items() if name not in TOKENS and value is not None}
    settings = [name for name in given if belongs_to_generate(name)]
    if settings:
        raise PromptError(
            f"bind: encoded prompts must hold inputs of the prompts, got also {', '.join(settings)}; "
            "give it to generate: call.generate(...)"
        )
    taken = input_names(model)
    given = {name: value for name, value in given.items() if name in taken or name != "token_type_ids"}
    strange = [name for name in given if name not in taken]
    if strange:
        raise PromptError(
            f"bind: encoded prompts must hold inputs that {type(model).__name__} takes, "
            f"got also {', '.join(sorted(strange))}; leave them out"
        )
    return {name: _as_tensor(value) for name, value in given.items()}


def _as_tensor(value: Any) -> Any:
    """Return lists of numbers as a tensor; anything else as it is."""
    if isinstance(value, Tensor) or not hasattr(value, "__len__"):
        return value
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return value  # for instance a list of images of several sizes


def inputs_of_stream(model: Any, inputs: Mapping[str, Any], label: str, *, like: Any = None) -> dict[str, Any]:
    """Return the further inputs of the prompts, such as images, that the model of a second stream takes.

    Args:
        model: the model of the stream.
        inputs: the inputs of the call's prompts besides tokens.
        label: name of the stream.
        like: the generating model, whose dtype the inputs have; another model gets floats in its own dtype.

    Raises:
        ModeError: lists the inputs that the model does not take.

    >>> import torch
    >>> from logitkit.registry.laws import tiny_model
    >>> inputs_of_stream(tiny_model(), {"token_type_ids": torch.zeros(1, 2)}, "large")
    {}
    """
    taken = input_names(model)
    missed = [name for name in inputs if name not in taken and name != "token_type_ids"]
    kind = type(getattr(model, "prepared_by", model)).__name__
    refuse_missed(missed, label, f"since {kind} does not take them; choose a model that does")
    own, dtype = getattr(model, "prepared_by", model) is like, getattr(model, "dtype", None)
    return {
        name: value.to(dtype)
        if not own and dtype and isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in inputs.items()
        if name in taken
    }


def refuse_missed(names: Collection[str], label: str, reason: str) -> None:
    """Refuse a stream that would not read all inputs of the prompts.

    Args:
        names: the inputs that it would miss; none: nothing is refused.
        label: name of the stream.
        reason: why, and the way out.

    Raises:
        ModeError: there are such inputs.
    """
    if names:
        raise ModeError(
            f"bind: every second stream must read the inputs that the model reads, got also {', '.join(names)}, "
            f"which the chain cannot hand to {label!r}, {reason}"
        )


def refuse_prepared_inputs(owner: str, settings: Mapping[str, Any]) -> None:
    """Refuse inputs besides tokens in a loop of `generate` that reads tokens alone.

    Args:
        owner: the loop, for the error.
        settings: arguments of the forward that `generate` has prepared. Positions that follow from the mask, and the
            outputs of an encoder that was given nothing, are no inputs.

    Raises:
        ModeError: lists the inputs.

    >>> refuse_prepared_inputs("Loop", {"attention_mask": torch.tensor([[0, 1]])})
    >>> refuse_prepared_inputs("Loop", {"pixel_values": torch.zeros(1)})
    Traceback (most recent call last):
    logitkit.errors.ModeError: Loop: inputs must be tokens alone, got also pixel_values; leave them out
    """
    names = [name for name, value in settings.items() if value is not None and not belongs_to_generate(name)]
    read = {*TOKENS, "position_ids"} if _follow_from_the_mask(settings) else {*TOKENS}
    given = [name for name in names if name not in read and (isinstance(settings[name], Tensor) or settings[name])]
    if given:
        got = ", ".join(given).replace("mm_encoder_outputs", "images or videos")  # encoded by `generate`
        raise ModeError(f"{owner}: inputs must be tokens alone, got also {got}; leave them out")


def _follow_from_the_mask(settings: Mapping[str, Any]) -> bool:
    """Return whether positions are those that `generate` gives to the tokens of the mask."""
    positions, mask = settings.get("position_ids"), settings.get("attention_mask")
    if positions is None:
        return True
    mask = torch.ones_like(positions) if mask is None else mask.to(positions.device).long()
    want = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
    return bool(positions.shape[-1] == want.shape[-1] and (positions == want).all())


def media_tokens(model: Any) -> dict[str, int]:
    """Return the tokens that stand for a part of an image, a video or a recording in the prompts of a model.

    Args:
        model: a model of transformers.

    Returns:
        For each medium the id that the model's configuration states.

    >>> from types import SimpleNamespace
    >>> media_tokens(SimpleNamespace(config=SimpleNamespace(image_token_index=9, eos_token_id=2)))
    {'image': 9}
    """
    config = getattr(model, "config", None)
    names = ((medium, f"{medium}_token_{ending}") for medium in MEDIA for ending in ("id", "index"))
    found = ((medium, getattr(config, name, None)) for medium, name in names)
    return {medium: token for medium, token in found if isinstance(token, int)}


def refuse_missing_media(model: Any, own: Iterable[Sequence[int]], inputs: Collection[str], label: str) -> None:
    """Refuse prompts with places for images, videos or recordings that come without them.

    Args:
        model: a model that reads the prompts.
        own: the prompts as token ids.
        inputs: names of the inputs that come with the prompts.
        label: name of the stream that would read the places as text.

    Raises:
        ModeError: names the medium and its token.
    """
    if set(inputs) - set(ALIGNED):
        return
    present = {token for tokens in own for token in tokens}
    for medium, token in media_tokens(model).items():
        if token in present:
            raise ModeError(
                f"bind: prompts with {medium} tokens (id {token}) must be bound with the {medium}s, got tokens alone, "
                f"which {label!r} would read as text; bind the whole encoding, such as "
                "{'input_ids': ..., 'attention_mask': ..., 'pixel_values': ...}"
            )
