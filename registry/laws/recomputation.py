"""The distribution of a chain after one prefix, computed from scratch: slow and simple, to test everything else.

The generating model reads the whole prefix without a KV cache or padding, and a newly bound chain is called once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.model_facts import end_tokens
from logitkit.registry.bind import bind
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain

Continuation = tuple[int, ...]


class Recomputation:
    """A chain, a model and prompts, evaluated prefix by prefix from scratch; results are kept by prefix.

    Args:
        chain: the chain.
        model, tokenizer: the generating model.
        prompts: texts.
        resources, tokenizers: as in `Chain.bind`.
        depends_on_scale: the chain treats log-probabilities, as in beam search, differently from logits.
        inputs: what the generating model reads besides tokens, one entry for each prompt.
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
        depends_on_scale: bool = False,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.chain, self.model, self.tokenizer, self.prompts = chain, model, tokenizer, list(prompts)
        self.resources, self.tokenizers, self.depends_on_scale = resources, tokenizers, depends_on_scale
        self.inputs = dict(inputs or {})
        self._known: dict[tuple[int, Continuation, bool], Tensor] = {}

    def bind(self, prompts: Sequence[str] | None = None) -> Call:
        """Return a new call, bound to these prompts instead of its own if given."""
        return bind(
            self.chain,
            self.model,
            self.tokenizer,
            self._encoded(prompts) if self.inputs else list(prompts or self.prompts),
            trace=False,
            tokenizers=self.tokenizers,
            resources=self.resources,
            warn=False,
        )

    def _encoded(self, prompts: Sequence[str] | None) -> dict[str, Tensor]:
        """Return an encoding of the prompts with the inputs of each, padded on the left."""
        numbers = [self.prompts.index(text) for text in prompts or self.prompts]
        rows = [self.tokenizer(self.prompts[number])["input_ids"] for number in numbers]
        padded = self.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        own = {name: value[numbers] for name, value in self.inputs.items()}
        return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"], **own}

    def __call__(self, prompt: int, continuation: Continuation, *, beams: bool = False) -> Tensor:
        """Return log-probabilities of the next token under the chain, in nats, ``[vocab]``.

        Args:
            prompt: number of the prompt.
            continuation: tokens after the prompt.
            beams: as beam search computes them: from log-probabilities, by processors that know of the beams.
        """
        key = prompt, continuation, beams
        if key not in self._known:
            self._known[key] = self.compute(prompt, continuation, beams=beams)
        return self._known[key]

    @torch.no_grad()
    def compute(
        self, prompt: int, continuation: Continuation, scores: Tensor | None = None, *, beams: bool = False
    ) -> Tensor:
        """Compute the result of a call without the cached results.

        The prompt is bound as often as there are prompts, so that parameters with one text for each prompt fit;
        no row is padded.

        Args:
            prompt, continuation: as in `__call__`.
            scores: the scores that the chain receives, ``[vocab]``; by default those of the model.
            beams: as in `__call__`.
        """
        call = self.bind([self.prompts[prompt]] * len(self.prompts))
        if beams:
            call.settings.tell({**call.generate_kwargs, "num_beams": 2})
        ids = call.inputs["input_ids"]
        tail = torch.tensor([continuation] * len(ids), dtype=torch.long, device=ids.device)
        rows = tail if call.prompts.in_encoder else torch.cat([ids, tail], dim=1)
        inputs = {"input_ids": ids, "decoder_input_ids": tail} if call.prompts.in_encoder else {"input_ids": rows}
        inputs |= {name: value[[prompt] * len(ids)] for name, value in self.inputs.items()}
        own = self.model(**inputs, use_cache=False).logits[:, -1].float()
        own = own.log_softmax(-1) if beams and self.depends_on_scale else own
        received = own if scores is None else scores.expand(len(rows), -1).clone()
        return call.composite(rows, received)[prompt].log_softmax(-1)

    def greedy(self, prompt: int, tokens: int) -> Continuation:
        """Return the greedy continuation of a prompt, of at most ``tokens`` tokens, up to an end token."""
        continuation: Continuation = self.start
        while len(continuation) < len(self.start) + tokens and not self.ended(continuation):
            continuation += (int(self(prompt, continuation).argmax()),)
        return continuation

    @property
    def start(self) -> Continuation:
        """The first tokens of every continuation: none, or the start token of a decoder."""
        encoded = self.model.config.is_encoder_decoder
        return (int(self.model.config.decoder_start_token_id),) if encoded else ()

    def ended(self, continuation: Continuation) -> bool:
        """Return whether a continuation holds an end token; later tokens are padding."""
        return bool(set(continuation[len(self.start) :]) & set(end_tokens(self.model)))
