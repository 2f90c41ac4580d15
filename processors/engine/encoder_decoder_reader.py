"""Second streams of an encoder-decoder model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from logitkit.processors.engine.model_forward import forwarded
from logitkit.processors.engine.reader import Reader
from logitkit.processors.model_facts import text_config
from logitkit.processors.transformers_api import with_cache


class EncoderDecoderReader(Reader):
    """A `Reader` of an encoder-decoder model: the encoder reads the own prompt, rows hold decoder tokens only.

    Args:
        model: an encoder-decoder language model.
        own: the prompts of the encoder as token ids, one for each of ``prompts``, none empty.
        prompts: the prompts of the call.

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

    def _open(self, index: Tensor, tail: Tensor, count: int) -> None:
        """Encode the own prompts, then read the decoder tokens with a new cache."""
        distinct, inverse = torch.unique(index, return_inverse=True)
        mask = self._own_mask[distinct]
        encoded = self.model.get_encoder()(input_ids=self._own_ids[distinct], attention_mask=mask)
        self._encoded = encoded.last_hidden_state[inverse]
        config = text_config(self.model)
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self._index, self._tail, self._logits = index, tail[:, :0], []
        self._feed(tail, count)

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
        output = forwarded(
            self.model,
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
            attention_mask=self._own_mask[self._index],
            decoder_input_ids=chunk,
            **with_cache(self._cache),
        )
        return self._counted(output, chunk, count)
