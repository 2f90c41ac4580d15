"""Slow and obvious: what a chain answers for one prefix, with nothing remembered and nothing beside it.

The generating model reads the whole prefix without a cache or padding, and a chain that was bound a moment ago
is asked once. Whatever `generate` did to get there must come to the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.model_facts import end_tokens
from logitkit.registry.call import Call, bind
from logitkit.registry.chain import Chain

Continuation = tuple[int, ...]


class Recomputation:
    """A chain on a model and prompts, asked prefix by prefix from scratch; an answer is kept for the next question.

    Args:
        chain: what is bound.
        model, tokenizer: the generating model.
        prompts: its prompts, as texts.
        resources, tokenizers: what the chain names.
        minds_scale: the chain answers otherwise to log-probabilities, which beam search gives, than to logits.
    """

    def __init__(
        self,
        chain: Chain,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[str],
        *,
        resources: Mapping[str, Any],
        tokenizers: Mapping[str, Any] | None = None,
        minds_scale: bool = False,
    ) -> None:
        self.minds_scale = minds_scale
        self.chain, self.model, self.tokenizer, self.prompts = chain, model, tokenizer, list(prompts)
        self.resources, self.tokenizers = resources, tokenizers
        self._known: dict[tuple[int, Continuation, bool], Tensor] = {}

    def bind(self, prompts: Sequence[str] | None = None) -> Call:
        """The chain, bound anew."""
        return bind(
            self.chain,
            self.model,
            self.tokenizer,
            list(prompts or self.prompts),
            trace=False,
            tokenizers=self.tokenizers,
            resources=self.resources,
        )

    def __call__(self, prompt: int, continuation: Continuation, *, beams: bool = False) -> Tensor:
        """Log-probabilities of the next token under the chain, ``[vocab]``."""
        key = prompt, continuation, beams and self.minds_scale
        if key not in self._known:
            self._known[key] = self.answer(prompt, continuation, normalised=key[2])
        return self._known[key]

    @torch.no_grad()
    def answer(
        self, prompt: int, continuation: Continuation, scores: Tensor | None = None, *, normalised: bool = False
    ) -> Tensor:
        """The same, computed; of these scores ``[vocab]`` instead of the model's own, if given.

        The prompt is bound as often as there are prompts, so that what is given once a prompt finds its place;
        no row is padded.
        """
        call = self.bind([self.prompts[prompt]] * len(self.prompts))
        ids = call.inputs["input_ids"]
        tail = torch.tensor([continuation] * len(ids), dtype=torch.long, device=ids.device)
        rows = tail if call.prompts.in_encoder else torch.cat([ids, tail], dim=1)
        given = {"input_ids": ids, "decoder_input_ids": tail} if call.prompts.in_encoder else {"input_ids": rows}
        own = self.model(**given, use_cache=False).logits[:, -1].float()
        own = own.log_softmax(-1) if normalised else own
        taken = own if scores is None else scores.expand(len(rows), -1).clone()
        return call.composite(rows, taken)[prompt].log_softmax(-1)

    def greedy(self, prompt: int, tokens: int) -> Continuation:
        """The likeliest token, and so on, until so many are written or one ends the text."""
        written: Continuation = self.start
        while len(written) < len(self.start) + tokens and not self.ended(written):
            written += (int(self(prompt, written).argmax()),)
        return written

    @property
    def start(self) -> Continuation:
        """What a continuation begins with: nothing, or a decoder's first token."""
        encoded = self.model.config.is_encoder_decoder
        return (int(self.model.config.decoder_start_token_id),) if encoded else ()

    def ended(self, written: Continuation) -> bool:
        """Whether a token that ends the text was written; what follows is padding."""
        return bool(set(written[len(self.start) :]) & set(end_tokens(self.model)))
