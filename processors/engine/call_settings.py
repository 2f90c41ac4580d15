"""What `generate` is told for one run, as far as processors need it: end tokens, padding, beams, the decoder's prompt.

A chain is bound before `generate` is called, and the arguments of `generate` win over the configuration of the model.
`Call.generate` and `Call.settings_for` tell a call's settings; processors ask them at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Annotated, Any

import torch
from torch import Tensor

from logitkit.params import Resource
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.static_settings import StaticSettings
from logitkit.processors.model_facts import end_tokens, id_tuple

OWN_START = ("donut", "whisper")  # models whose decoder prompts generate leaves as they are


class CallSettings:
    """The settings of the `generate` that runs, with the model's configuration where nothing was told.

    Args:
        model: the generating model; only its ``generation_config`` and ``config`` are read.
        prompts: the prompts of the call.

    Attributes:
        decoder_width: number of tokens of a decoder's prompt, its start token included; 0 without an encoder.
        beams: whether `generate` searches with more than one beam.
        padding: id that `generate` writes after the end of a row; None: no row ends before the others.
        decoder_mask: the mask of the decoder's prompts, ``[prompts, decoder_width]``; None: every token is read.
        static: of a `generate` that compiles its forward for a static cache; else None.

    Example:
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> settings = CallSettings(tiny_model(), prompts)
        >>> settings.end_tokens(), settings.beams, settings.start
        ((257,), False, 8)
        >>> settings.tell({"eos_token_id": [5, 7], "num_beams": 4})
        >>> settings.end_tokens(), settings.beams
        ((5, 7), True)
    """

    def __init__(self, model: Any, prompts: Prompts) -> None:
        self._model, self.prompts = model, prompts
        self.tell({})

    def __getstate__(self) -> dict[str, Any]:
        facts = {name: getattr(self._model, name, None) for name in ("generation_config", "config")}
        return vars(self) | {"_model": SimpleNamespace(**facts)}  # without the weights

    def tell(self, settings: Mapping[str, Any]) -> None:
        """Replace what was told before by the settings of another `generate`.

        Args:
            settings: keyword arguments of ``model.generate``.
        """
        given, own = settings.get("generation_config"), getattr(self._model, "generation_config", None)

        def value(name: str) -> Any:
            if name in settings:
                return settings[name]
            stated = getattr(given, name, None)
            return getattr(own, name, None) if stated is None else stated

        told = "eos_token_id" in settings or getattr(given, "eos_token_id", None) is not None
        self._told_ends = id_tuple(value("eos_token_id")) if told else None
        self.beams = (value("num_beams") or 1) > 1
        pads = id_tuple(value("pad_token_id")) or self.end_tokens()
        self.padding = pads[0] if pads else None
        self.decoder_width, self.decoder_mask = 0, None
        self.static = StaticSettings.of(value, settings, self.prompts.width)
        if self.prompts.in_encoder:
            begin = value("decoder_start_token_id")
            begin = value("bos_token_id") if begin is None else begin
            self.decoder_width = self._width(settings.get("decoder_input_ids"), begin)
            self.decoder_mask = self._mask(settings.get("decoder_attention_mask"))

    @property
    def ends_are_told(self) -> bool:
        """Whether `generate` was told end tokens, or that there are none."""
        return self._told_ends is not None

    def are_of(self, model: Any) -> bool:
        """Return whether this is the generating model."""
        return model is self._model

    @property
    def start(self) -> int:
        """Number of tokens of a row before its first new token, padding and the decoder's prompt included."""
        return self.decoder_width if self.prompts.in_encoder else self.prompts.width

    def end_tokens(self) -> tuple[int, ...]:
        """Return the tokens at which `generate` ends a row; empty when there are none."""
        return end_tokens(self._model) if self._told_ends is None else self._told_ends

    def least_kept(self, least: int) -> int:
        """Return how many tokens a truncation keeps at least, as `generate` decides it for its own truncations.

        Beams that reach an end token leave the search, so one token more than there are end tokens stays, and two.

        Args:
            least: number of tokens kept at least without beams.
        """
        return max(least, 2, len(self.end_tokens()) + 1) if self.beams else least

    def text_ends(self, otherwise: Sequence[int]) -> tuple[int, ...]:
        """Return the tokens that end a text: those at which `generate` ends a row, else those of the training texts.

        Args:
            otherwise: the tokenizer's end token, which counts where neither `generate` was told end tokens nor the
                model states any.
        """
        ends = self.end_tokens()
        return ends if ends or self.ends_are_told else tuple(otherwise)

    def without_padding(self, row: Sequence[int]) -> list[int]:
        """Return the new tokens of a row without the padding that `generate` wrote after an end token.

        Args:
            row: the tokens after the prompt.

        Example:
            >>> from logitkit.processors.engine import read_prompts
            >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
            >>> settings = CallSettings(tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "a prompt"))
            >>> settings.tell({"eos_token_id": 5, "pad_token_id": 97})
            >>> settings.without_padding([97, 5, 97, 97]), settings.without_padding([98, 97])
            ([97, 5], [98, 97])
        """
        length = len(row)
        while length and row[length - 1] == self.padding:
            length -= 1
        ends = self.end_tokens()
        if self.padding in ends and length < len(row):
            return list(row[: length + 1])  # the first of them is the end token
        return list(row[:length] if length and row[length - 1] in ends else row)

    def _width(self, decoder: Tensor | None, begin: Any) -> int:
        """Return the length of a decoder's prompt; `generate` puts the start token before it where it is missing."""
        if decoder is None:
            return 1
        kinds = f"{type(self._model).__name__} {getattr(self._model.config, 'model_type', '')}".lower()
        if any(kind in kinds for kind in OWN_START) or begin is None:
            return int(decoder.shape[1])
        first = begin.to(decoder.device).view(-1) if isinstance(begin, Tensor) else begin
        return int(decoder.shape[1]) + bool((decoder[:, 0] != first).all())

    def _mask(self, told: Any) -> Tensor | None:
        """Return a decoder's mask; `generate` reads the start token that it puts before the decoder's prompt."""
        if not isinstance(told, Tensor) or bool((told == 1).all()):
            return None
        return torch.nn.functional.pad(told.long(), (max(0, self.decoder_width - told.shape[1]), 0), value=1)


BoundSettings = Annotated[CallSettings | None, Resource()]
"""What a constructor accepts as the settings of a call; None: the processor is used without a call."""
