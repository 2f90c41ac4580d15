"""A language model over tokens as a language model over bytes, usable with transformers' ``generate``.

`ByteTree` computes the distribution of the next byte. `ByteModel` presents this distribution as a transformers model
with 257 ids: the 256 bytes and the end of the text. Sampling, beams, warpers and processors then work on bytes, and
any two models share one vocabulary, whatever their tokenizers.

The KV cache of a `ByteModel` holds no keys and values, only the ids so far: its one layer stores the ids as keys.
transformers reorders, repeats, crops and selects cache rows as for any model, and `ByteModel` looks up the
distribution of a row by its text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel

from logitkit.errors import ModeError, ModelError
from logitkit.processors.byte_level.covers import CoverKind
from logitkit.processors.byte_level.distribution import ByteDistribution
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.output import ByteOutput, next_byte_loss
from logitkit.processors.byte_level.tokenizer import SIZE, check_bytes, texts_of
from logitkit.processors.byte_level.tree import ByteTree
from logitkit.processors.tokens.byte_trie import END
from logitkit.processors.transformers_api import CACHE

DISTRIBUTIONS_KEPT = 1024  # largest number of cached distributions


class _Normalised(NamedTuple):
    """A distribution that sums to 1, fp32 ``[257]``, with the leak and the bound from before it was normalised."""

    logp: Tensor
    leak: float
    bound: float


class ByteConfig(PreTrainedConfig):
    """Configuration of a `ByteModel`: 257 ids and one cache layer whose keys are ids.

    >>> ByteConfig().vocab_size, ByteConfig().eos_token_id
    (257, 256)
    """

    model_type = "logitkit_bytes"

    def __init__(self, **settings: Any) -> None:
        self.vocab_size, self.num_hidden_layers, self.hidden_size, self.num_attention_heads = SIZE, 1, 1, 1
        super().__init__(**{"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, **settings})


class ByteModel(PreTrainedModel, GenerationMixin):
    """A model over bytes: its next-id distribution is a language model's next-byte distribution, normalised.

    Ids 0 to 255 are bytes. Id 256 ends a text, pads rows, and may begin a row: ``[[256]]`` is the empty text. Encode
    prompts with `byte_tokenizer`, or bytes that are not UTF-8 with `rows_of`. After an end, the only possible id is
    another end. A row of probability 0, such as an abandoned beam, also ends; a prompt of probability 0 is an error.

    Args:
        model: a causal language model; it is put in eval mode.
        tokenizer: its fast tokenizer.
        covers, tolerance, bos, lossy: see `ByteTree`.
        conditioning: token ids that precede every text in place of the begin token, such as a chat template up to the
            answer.

    Attributes:
        model: the language model.
        tree: the `ByteTree`; its distributions are not normalised.
        covers: the kind of covers that are summed over.

    Raises:
        ModelError: ``model`` is a ByteModel; see also `ByteTree`.
        ParameterError: see `ByteTree`.

    >>> from logitkit.processors.byte_level import byte_tokenizer
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> model, tokenizer = ByteModel(tiny_model(), tiny_tokenizer()), byte_tokenizer()
    >>> ids = model.generate(**tokenizer("ab", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    >>> bytes(ids[0, :2].tolist()), ids.shape[1] <= 5
    (b'ab', True)
    """

    config_class = ByteConfig
    main_input_name = "input_ids"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        covers: CoverKind = "canonical",
        tolerance: float = 0.0,
        bos: int | Literal["tokenizer"] | None = "tokenizer",
        lossy: bool = False,
        conditioning: Sequence[int] | None = None,
    ) -> None:
        if isinstance(model, ByteModel):
            raise ModelError("ByteModel: model must be over tokens, got a ByteModel; use the ByteModel directly")
        super().__init__(ByteConfig())
        model.train(False)
        self.tree = ByteTree(model, tokenizer, covers=covers, tolerance=tolerance, bos=bos, lossy=lossy)
        self.model, self.covers = model, covers
        self.conditioning = None if conditioning is None else tuple(int(token) for token in conditioning)
        self._distributions: OrderedDict[bytes, _Normalised] = OrderedDict()
        self.train(False)

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """Return None: bytes have no embeddings."""

    @property
    def forwards(self) -> int:
        """Forward passes of the language model so far."""
        return self.tree.forwards

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache of the language model."""
        return self.tree.kv_tree.cache_bytes

    def distribution(self, text: bytes) -> ByteDistribution:
        """Return the distribution of the next byte after a text, not normalised, with its leak and bound."""
        return self.tree.distribution(text, conditioning=self.conditioning)

    def logp(self, texts: Sequence[bytes]) -> Tensor:
        """Return normalised log-probabilities in nats of the next byte after each text, ``[texts, 257]``.

        The row of a text of probability 0 is all -inf.

        Raises:
            ParameterError: a text is no bytes.
        """
        check_bytes("ByteModel", texts)
        return torch.stack([distribution.logp for distribution in self._cached(texts)])

    def same_as(self, other: Any) -> bool:
        """Return whether another model has the same distributions: the same language model and the same settings.

        The language model of this object, with the tokenizer of this object, counts as the same.
        """
        if not isinstance(other, ByteModel):
            return other is self.model
        settings = [
            (model.covers, model.tree.tolerance, model.tree.conditioning, model.conditioning) for model in (self, other)
        ]
        same_parts = other.model is self.model and other.tree.tokenizer is self.tree.tokenizer
        return same_parts and settings[0] == settings[1]

    def counterpart(self, model: Any, tokenizer: Any) -> ByteModel:
        """Return another model over tokens as a model over bytes, with the covers and the tolerance of this one."""
        return ByteModel(model, tokenizer, covers=self.covers, tolerance=self.tree.tolerance)

    def release(self) -> None:
        """Drop the distributions and the KV cache of all texts."""
        self._distributions.clear()
        self.tree.release()

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        **settings: Any,
    ) -> ByteOutput:
        """Return distributions after the ids, with the interface of a causal language model of transformers.

        Args:
            input_ids: the ids after the cached ones, 0 to 256, ``[rows, length]``.
            attention_mask: 1 where an id counts, ``[rows, cached and new]``; None: everywhere.
            past_key_values, cache: a cache of this model, by the name before and from transformers 5.24 on; None: a new
                one, unless ``use_cache`` is false.
            use_cache: whether to return a cache; a cache that is passed is always used.
            logits_to_keep: number of last positions to return, or the positions; 0: all.
            return_dict: ignored; the output is always a `ByteOutput`.
            labels: ids whose loss is returned, usually the ``input_ids``; -100 is ignored, ``[rows, length]``. The
                loss has no gradient.
            settings: ``num_items_in_batch`` and the like, for the loss; see `next_byte_loss`.

        Raises:
            ModelError: an id outside 0 to 256; a prompt that the language model cannot write.
            ModeError: a cache other than a `DynamicCache`.
            ParameterError: labels of another shape than the returned logits, or other labels than ids and -100.
        """
        # Over 40 lines: the signature and the description of transformers' contract take 30 of them.
        if input_ids.numel() and not bool(((input_ids >= 0) & (input_ids < SIZE)).all()):
            raise ModelError(
                f"ByteModel: input_ids must be bytes and the end (0 to {END}), got {int(input_ids.max())}; "
                "encode with byte_tokenizer()"
            )
        cache = past_key_values if cache is None else cache
        use_cache = cache is not None or use_cache is not False
        ids, is_prompt = input_ids, use_cache
        if use_cache:
            cache = DynamicCache(config=self.config) if cache is None else cache
            is_prompt = cache.get_seq_length() == 0
            ids = _append(cache, input_ids)
        count = input_ids.shape[1]
        kept = range(count)[-logits_to_keep:] if isinstance(logits_to_keep, int) else logits_to_keep.tolist()
        mask = None if attention_mask is None else attention_mask[:, : ids.shape[1]]
        ends = [ids.shape[1] - count + position + 1 for position in kept]
        texts = [text for row in texts_of(ids, mask, ends=ends) for text in row]
        distributions = self._after(texts, is_prompt=is_prompt)
        output = _output(distributions, (len(ids), len(kept)), input_ids.device, cache if use_cache else None)
        if labels is not None and output.logits is not None:
            output.loss = next_byte_loss(output.logits, labels, **settings)
        return output

    def _after(self, texts: Sequence[bytes | None], *, is_prompt: bool) -> list[_Normalised]:
        """Return distributions after texts; ended texts (None) and texts of probability 0 are followed by the end."""
        cached = iter(self._cached([text for text in texts if text is not None]))
        only_end = torch.full((SIZE,), -torch.inf)
        only_end[END] = 0.0
        distributions = [_Normalised(only_end, 0.0, 0.0) if text is None else next(cached) for text in texts]
        for place, (logp, leak, bound) in enumerate(distributions):
            if not bool(torch.isfinite(logp).any()):
                if is_prompt:
                    raise ModelError(
                        f"ByteModel: a prompt must be text that {type(self.model).__name__} can write, got "
                        f"{texts[place]!r}; its vocabulary lacks these bytes"
                    )
                distributions[place] = _Normalised(only_end, leak, bound)
        return distributions

    def _cached(self, texts: Sequence[bytes]) -> list[_Normalised]:
        """Return the normalised distribution after each text; texts without a cached one are read together.

        A text is read after the text that it extends by one byte, so that it costs one more token and not a new
        reading.
        """
        waves: dict[bytes, int] = {}
        for text in sorted({text for text in texts if text not in self._distributions}, key=len):
            waves[text] = waves.get(text[:-1], -1) + 1 if text else 0
        for wave in range(max(waves.values(), default=-1) + 1):
            unread = [text for text, number in waves.items() if number == wave]
            conditionings = None if self.conditioning is None else [self.conditioning] * len(unread)
            for text, distribution in zip(
                unread, self.tree.distributions(unread, conditionings=conditionings), strict=True
            ):
                self._distributions[text] = _normalise(distribution)
        for text in texts:
            self._distributions.move_to_end(text)
        distributions = [self._distributions[text] for text in texts]
        while len(self._distributions) > max(DISTRIBUTIONS_KEPT, len(distributions)):
            self._distributions.popitem(last=False)
        return distributions

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the model, and drop what was computed before on another device or in another dtype."""
        self.release()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Raise ModelError: the only weights are those of the language model."""
        raise ModelError("ByteModel: has no weights of its own to save; save .model, and wrap it again")


def _output(
    distributions: Sequence[_Normalised], shape: tuple[int, int], device: torch.device, cache: Any
) -> ByteOutput:
    """Return distributions as the output of a model; ``shape`` is rows by kept positions."""
    return ByteOutput(
        logits=torch.stack([distribution.logp for distribution in distributions]).view(*shape, SIZE).to(device),
        **{CACHE: cache},
        leak=torch.tensor([distribution.leak for distribution in distributions], device=device).view(shape),
        bound=torch.tensor([distribution.bound for distribution in distributions], device=device).view(shape),
    )


def _append(cache: Any, input_ids: Tensor) -> Tensor:
    """Append ids to a cache as the keys of its one layer; return all ids so far, ``[rows, length]``."""
    if not isinstance(cache, DynamicCache):
        raise ModeError(
            f"ByteModel: the cache must be a DynamicCache, got {type(cache).__name__}; leave cache_implementation out"
        )
    keys, _ = cache.update(input_ids[:, None, :, None], input_ids[:, None, :, None], 0)
    return keys[:, 0, :, 0]


def _normalise(distribution: ByteDistribution) -> _Normalised:
    """Return a distribution as fp32 log-probabilities that sum to 1; all -inf stays all -inf."""
    total = logsumexp(distribution.logp.numpy())
    logp = distribution.logp if np.isneginf(total) else distribution.logp - total
    return _Normalised(logp.float(), distribution.leak, distribution.bound)
