"""Second streams of an encoder-decoder model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.inputs_reader import on_device
from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.reading_check import ReadingAbilities
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import with_cache


class EncoderDecoderReader(Reader):
    """A `Reader` of an encoder-decoder model: the encoder reads the own prompt, rows hold decoder tokens only.

    Args:
        model: an encoder-decoder language model.
        own: the prompts of the encoder as token ids, one for each of ``prompts``, none empty.
        prompts: the prompts of the call.
        abilities: as in `Reader`.
        inputs: further inputs of the encoder with the own prompts, by name, in the form that `generate` takes.
        settings: what `generate` is told, among it the mask of a decoder's prompt; None: nothing.

    Attributes:
        inputs: the further inputs on the device of the model.

    Example:
        >>> import torch
        >>> from logitkit.processors.engine import EncoderDecoderReader, read_prompts
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> from logitkit.registry.laws.tiny_models import encoder_decoder_model
        >>> model = encoder_decoder_model()
        >>> reader = EncoderDecoderReader(model, [[1, 2, 3]], read_prompts(tiny_tokenizer(), model, "a prompt"))
        >>> reader(torch.tensor([[0]])).shape, reader.fusable
        (torch.Size([1, 272]), False)
    """

    fusable = False

    def __init__(
        self,
        model: Any,
        own: Sequence[Sequence[int]],
        prompts: Prompts,
        *,
        abilities: ReadingAbilities | None = None,
        inputs: Mapping[str, Any] | None = None,
        settings: CallSettings | None = None,
    ) -> None:
        self.inputs, self._settings = on_device(inputs or {}, model), settings
        self._decoder_mask: Tensor | None = None  # of the decoder's prompts, with which the cache was filled
        super().__init__(model, own, prompts, abilities=abilities)

    def _read(self, rows: Tensor, count: int) -> list[Tensor]:
        """Bring the cache to these rows; another mask of the decoder's prompts makes the cache useless."""
        told = None if self._settings is None else self._settings.decoder_mask
        if told is not self._decoder_mask:
            self.release()
            self._decoder_mask = told
        return super()._read(rows, count)

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Encode the own prompts, then read the decoder tokens with a new cache."""
        distinct, inverse = torch.unique(index, return_inverse=True)
        if self.inputs:  # images may be stacked over all prompts, which are therefore encoded together
            self._encoded = self._encoded_with_inputs()[index]
        else:
            mask = self._own_mask[distinct]
            encoded = self.model.get_encoder()(input_ids=self._own_ids[distinct], attention_mask=mask)
            self._encoded = encoded.last_hidden_state[inverse]
        config = text_config(self.model)
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self._index, self._tail, self._logits = index, tail[:, :0], []
        self._feed(tail, count)

    def _encoded_with_inputs(self) -> Tensor:
        """Return the encoder's output for all own prompts and their inputs, as `generate` computes it."""
        given = {**self.inputs, "attention_mask": self._own_mask}
        prepare = self.model._maybe_prepare_encoder_kwargs_for_generation
        prepared = prepare(self._own_ids, given, "input_ids", self.model.generation_config)
        return prepared["encoder_outputs"].last_hidden_state  # type: ignore[no-any-return]

    def _select(self, source: Tensor) -> None:
        """Reorder the encoder's output together with the cache."""
        super()._select(source)
        self._encoded = self._encoded[source]

    def _forward(self, chunk: Tensor, positions: Tensor, count: int) -> Tensor:
        """Run the decoder on a chunk after the cached tokens; return its last logits, ``[rows, count, vocab]``.

        Args:
            chunk: decoder tokens, ``[rows, tokens]``.
            positions: unused; a decoder with relative positions counts them itself.
            count: number of last tokens.
        """
        masks: dict[str, Any] = {"attention_mask": self._own_mask[self._index]}
        if self._decoder_mask is not None:
            told = self._decoder_mask.to(chunk.device)[self._index]  # [rows, width of the decoder's prompt]
            mask = torch.cat([told, told.new_ones(self._tail.shape)], dim=1)
            masks["decoder_attention_mask"] = mask[:, : self._tail.shape[1]]
        output = forwarded(
            self.model,
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
            decoder_input_ids=chunk,
            **masks,
            **with_cache(self._cache),
        )
        return self._counted(output, chunk, count)
