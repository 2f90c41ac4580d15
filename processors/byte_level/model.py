"""Any language model as one over bytes, for everything that transformers' ``generate`` can do.

`ByteTree` gives the law of the next byte; `ByteModel` wears it as a transformers model with 257 ids: the bytes and
the end of the text. Sampling, beams, warpers and processors then work on bytes, and any two models share one
vocabulary, whatever their tokenizers.

What a row has written is all the state there is, so that is what its cache holds: the "keys" of its one layer are
the ids themselves. transformers reorders, repeats, crops and selects them as it does with any cache, and the law of
a row is looked up by its text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from logitkit.errors import ModeError, ModelError
from logitkit.processors.byte_level.covers import CoverKind, logsumexp
from logitkit.processors.byte_level.tokenizer import SIZE, texts_of
from logitkit.processors.byte_level.tree import ByteDistribution, ByteTree
from logitkit.processors.tokens.byte_trie import END

REMEMBERED = 1024  # texts whose law is kept


class ByteConfig(PreTrainedConfig):
    """Configuration of a `ByteModel`: 257 ids, and one layer whose keys are ids."""

    model_type = "logitkit_bytes"

    def __init__(self, **more: Any) -> None:
        self.vocab_size, self.num_hidden_layers, self.hidden_size, self.num_attention_heads = SIZE, 1, 1, 1
        super().__init__(**{"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, **more})


@dataclass
class ByteOutput(CausalLMOutputWithPast):
    """What a `ByteModel` returns.

    Attributes:
        logits: normalised log-probabilities in nats of the bytes and, last, of the end; fp32 ``[rows, kept, 257]``.
        past_key_values: the ids so far.
        leak: probability that the model gave to tokens that no canonical text goes on with, before the law was
            normalised; fp32 ``[rows, kept]``.
        bound: by how much the true log-probability of a text can exceed the computed one, in nats, likewise.
    """

    leak: Tensor | None = None
    bound: Tensor | None = None


class ByteModel(PreTrainedModel, GenerationMixin):
    """A model over bytes whose next-id law is a language model's law of the next byte, normalised.

    Ids 0 to 255 are bytes; 256 ends a text, pads, and may begin one, so that ``[[256]]`` is the empty text. Encode
    with `byte_tokenizer`, or bytes that are no UTF-8 with `rows_of`. After its end a text only ends.
    A row that cannot be written at all (a beam of probability 0) ends too; a prompt that cannot be is an error.

    Args:
        model: a causal language model; it is put in eval mode.
        tokenizer: its fast tokenizer.
        covers, tolerance, bos, lossy: see `ByteTree`.
        prefix: tokens that every text comes after, in place of the begin token: a chat template up to the answer, say.

    Attributes:
        model: the language model.
        tree: the `ByteTree`; its law of a text is not normalised and knows leak and bound.
        which: which covers it sums over.

    Raises:
        ModelError: see `ByteTree`; a model that is one over bytes already.
        ParameterError: see `ByteTree`.
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
        prefix: Sequence[int] | None = None,
    ) -> None:
        if isinstance(model, ByteModel):
            raise ModelError("ByteModel: model must be one over tokens, got a ByteModel; use it as it is")
        super().__init__(ByteConfig())
        self.tree = ByteTree(model, tokenizer, covers=covers, tolerance=tolerance, bos=bos, lossy=lossy)
        self.model, self.which = model, covers
        self.prefix = None if prefix is None else tuple(int(token) for token in prefix)
        self._distributions: OrderedDict[bytes, tuple[Tensor, float, float]] = OrderedDict()
        self.train(False)

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """Return None: bytes have no embeddings."""

    @property
    def forwards(self) -> int:
        """Forward passes of the language model so far."""
        return self.tree.tree.forwards

    def distribution(self, text: bytes) -> ByteDistribution:
        """The law of the next byte after a text, not normalised, with its leak and the bound on its error."""
        return self.tree.distribution(text, prefix=self.prefix)

    def logp(self, texts: Sequence[bytes]) -> Tensor:
        """Normalised log-probabilities in nats of what follows each text, ``[texts, 257]``; -inf alone: impossible."""
        return torch.stack([law for law, _, _ in self._known(texts)])

    def same_as(self, other: Any) -> bool:
        """Whether another model is this one: the same language model, read in the same way."""
        if not isinstance(other, ByteModel):
            return other is self.model
        settings = [(one.which, one.tree.tolerance, one.tree.prefix, one.prefix) for one in (self, other)]
        alike = other.model is self.model and other.tree.tokenizer is self.tree.tokenizer
        return alike and settings[0] == settings[1]

    def release(self) -> None:
        """Forget all texts."""
        self._distributions.clear()
        self.tree.release()

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **_: Any,
    ) -> ByteOutput:
        """Laws after the ids, as transformers asks for them.

        Args:
            input_ids: what comes after the cached ids, ``[rows, length]``, 0 to 256.
            attention_mask: 1 where an id counts, ``[rows, cached and new]``; None: everywhere.
            past_key_values: a cache of this model; None: a new one, unless ``use_cache`` is false.
            logits_to_keep: how many of the last positions are asked for, or which; 0: all.

        Raises:
            ModelError: other ids, a prompt that the model cannot write.
            ModeError: another kind of cache.
        """
        if input_ids.numel() and not bool(((input_ids >= 0) & (input_ids < SIZE)).all()):
            raise ModelError(
                f"ByteModel: input_ids must be bytes and the end (0 to {END}), got {int(input_ids.max())}; "
                "encode with byte_tokenizer()"
            )
        use_cache = past_key_values is not None or use_cache is not False
        ids, opens = input_ids, True
        if use_cache:
            past_key_values = DynamicCache(config=self.config) if past_key_values is None else past_key_values
            opens = past_key_values.get_seq_length() == 0
            ids = _append(past_key_values, input_ids)
        before, count = ids.shape[1] - input_ids.shape[1], input_ids.shape[1]
        kept = range(count)[-logits_to_keep:] if isinstance(logits_to_keep, int) else logits_to_keep.tolist()
        mask = None if attention_mask is None else attention_mask[:, : ids.shape[1]]
        texts = [text for row in texts_of(ids, mask, ends=[before + place + 1 for place in kept]) for text in row]
        found = self._after(texts, is_prompt=opens and use_cache)
        shape = len(ids), len(kept)
        return ByteOutput(
            logits=torch.stack([law for law, _, _ in found]).view(*shape, SIZE).to(input_ids.device),
            past_key_values=past_key_values if use_cache else None,
            leak=torch.tensor([leak for _, leak, _ in found], device=input_ids.device).view(shape),
            bound=torch.tensor([bound for _, _, bound in found], device=input_ids.device).view(shape),
        )

    def _after(self, texts: Sequence[bytes | None], *, is_prompt: bool) -> list[tuple[Tensor, float, float]]:
        """Laws of texts, of ended ones (None), and of impossible ones."""
        known = iter(self._known([text for text in texts if text is not None]))
        over = torch.full((SIZE,), -torch.inf)
        over[END] = 0.0
        laws = [(over, 0.0, 0.0) if text is None else next(known) for text in texts]
        for place, (logp, leak, bound) in enumerate(laws):
            if not bool(torch.isfinite(logp).any()):
                if is_prompt:
                    raise ModelError(
                        f"ByteModel: a prompt must be one that {type(self.model).__name__} can write, got "
                        f"{texts[place]!r}; its vocabulary lacks these bytes"
                    )
                laws[place] = over, leak, bound
        return laws

    def _known(self, texts: Sequence[bytes]) -> list[tuple[Tensor, float, float]]:
        """Distribution of each text; texts not remembered are read together, a prefix before what extends it."""
        waves: dict[bytes, int] = {}
        for text in sorted({text for text in texts if text not in self._distributions}, key=len):
            waves[text] = waves.get(text[:-1], -1) + 1 if text else 0
        for wave in range(max(waves.values(), default=-1) + 1):
            asked = [text for text, number in waves.items() if number == wave]
            prefix = None if self.prefix is None else [self.prefix] * len(asked)
            for text, law in zip(asked, self.tree.distributions(asked, prefix=prefix), strict=True):
                self._distributions[text] = _normalised(law)
        for text in texts:
            self._distributions.move_to_end(text)
        found = [self._distributions[text] for text in texts]
        while len(self._distributions) > max(REMEMBERED, len(found)):
            self._distributions.popitem(last=False)
        return found

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the model; what its cache held is on the old device."""
        self.release()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Refused: there is nothing to save beyond the language model within."""
        raise ModelError("ByteModel: has no weights of its own to save; save .model, and wrap it again")


def _append(cache: Any, input_ids: Tensor) -> Tensor:
    """Put ids into a cache as the keys of its one layer; return all ids so far, ``[rows, length]``."""
    if not isinstance(cache, DynamicCache):
        raise ModeError(
            f"ByteModel: past_key_values must be a DynamicCache, got {type(cache).__name__}; "
            "leave cache_implementation out"
        )
    keys, _ = cache.update(input_ids[:, None, :, None], input_ids[:, None, :, None], 0)
    return keys[:, 0, :, 0]


def _normalised(law: ByteDistribution) -> tuple[Tensor, float, float]:
    """The law as log-probabilities that sum to 1, fp32; and its leak and bound."""
    total = logsumexp(law.logp.numpy())
    logp = law.logp if np.isneginf(total) else law.logp - total
    return logp.float(), law.leak, law.bound
