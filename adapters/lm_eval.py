"""A model for the lm-evaluation-harness that generates and scores through a chain.

    logitkit lm-eval --model logitkit --tasks my_task --include_path tasks/ --device cpu
        --model_args "pretrained=smollm2-135m,chain=cfg(scale=1.5) | min_p(0.05)"

Importing this module registers the model ``logitkit`` with the harness; ``logitkit lm-eval`` does so and passes
every argument to the command line of the harness. From Python:
``lm_eval.simple_evaluate(model="logitkit", model_args={...})``.

Tokenization, templates, truncation and stop texts are those of the harness's ``hf`` model. With an empty chain, the
results also equal those of ``hf``. Each batch gets a new `Call`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from torch import Tensor

from logitkit import models
from logitkit.adapters.tokens_only import tables
from logitkit.errors import ModeError, ParameterError, PromptError
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.processors.engine.prompts import pad_token
from logitkit.progress import progress_bar
from logitkit.registry.bind import bind
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.registry.preloading import preload
from logitkit.registry.scoring import continuation_tokens, refuse_searches, score_tokens

Request = tuple[tuple[str, str] | None, list[int], list[int]]


@register_model("logitkit")
class ChainLM(HFLM):
    """A language model of the harness that generates and scores through a chain.

    Args:
        pretrained: a model that logitkit knows by name, a folder, a hub id, or a model object.
        chain: text, steps, or the name of a .yaml or .json file.
        resources: objects that parameters of the chain name.
        settings: arguments of the harness's ``hf`` model.

    Raises:
        ChainError, ParameterError, UnknownNameError: before a model is loaded.
        ModeError: an encoder-decoder model.
    """

    def __init__(
        self, pretrained: Any, chain: Any = "", *, resources: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        from_file = isinstance(chain, str) and chain.endswith((".yaml", ".yml", ".json"))
        self.chain = Chain.from_file(chain) if from_file else Chain(chain)
        for name in ("batch_size", "mixed_precision_dtype"):
            if settings.get(name) is not None and (name != "batch_size" or not str(settings[name]).isdigit()):
                rule = "a whole number" if name == "batch_size" else "left out, a chain is computed in fp32"
                raise ParameterError("lm-eval", name, rule, settings[name])
        named = dict(resources or {})
        named |= tables(self.chain, known=named)  # a missing file is told before the model is loaded
        if isinstance(pretrained, str) and pretrained in models.names():
            pretrained = str(models.pull(pretrained))
        super().__init__(pretrained=pretrained, **settings)
        if self.backend != "causal":
            raise ModeError(f"lm-eval: {pretrained} must be a decoder-only model; use the harness's own hf")
        self._resources, self._preloaded = named, preload(self.chain, like=self.model, known=named)

    def bound(self, prompts: Sequence[Sequence[int]]) -> Call:
        """Return a new call for a batch of prompts, each a list of token ids."""
        ids, mask = left_padded(prompts, pad_token(self.tokenizer, self.model))
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        return bind(
            self.chain,
            self.model,
            self.tokenizer,
            inputs,
            trace=False,
            tokenizers=None,
            resources=self._resources,
            load=self._preloaded.load,
            warn=False,  # a benchmark: one batch of many may have no examples
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Score continuations: the log-likelihood of each, and whether it is the greedy one.

        The harness calls this method for all log-likelihoods, rolling ones included.
        """
        size = override_bs or self.batch_size
        order = sorted(range(len(requests)), key=lambda number: -len(requests[number][1]) - len(requests[number][2]))
        results: dict[int, tuple[float, bool]] = {}
        shown = not disable_tqdm and self.rank == 0
        with progress_bar("log-likelihood", total=len(requests), enabled=shown) as bar:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                scored = self._scored([requests[number] for number in batch])
                for number, result in zip(batch, scored, strict=True):
                    results[number] = result
                    if requests[number][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[number][0], result)
                bar.advance(len(batch))
        return [results[number] for number in range(len(requests))]

    def _scored(self, batch: Sequence[Request]) -> list[tuple[float, bool]]:
        """Score one batch; a context that is too long for the model loses its beginning, as in ``hf``."""
        refuse_searches(self.chain, "lm-eval")
        longest = max(len(context) for _, context, _ in batch) + max(len(row) for _, _, row in batch) - 1
        if longest > self.max_length and len(batch) > 1:  # the padded batch would exceed the context
            return [result for request in batch for result in self._scored([request])]
        prompts = [context[max(0, len(context) + len(row) - 1 - self.max_length) :] for _, context, row in batch]
        call = self.bound(prompts)
        rows = [
            continuation_tokens(call, number, _after_context(texts, self.chain)) if any(call.prompts.removed) else row
            for number, (texts, _, row) in enumerate(batch)
        ]
        if not all(rows):
            texts = batch[[bool(row) for row in rows].index(False)][0]
            raise PromptError(
                f"lm-eval: {texts} must have at least one token after the context; let contexts end between "
                "tokens, or use byte_boundary()"
            )
        return [(sum(logp for logp, _ in each), all(greedy for _, greedy in each)) for each in score_tokens(call, rows)]

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], *, attention_mask: Tensor, **settings: Any
    ) -> Tensor:
        """Generate continuations of a batch; each returned row begins with its context, as the harness expects."""
        if not settings.get("do_sample"):
            settings = {**settings, "do_sample": False}
            settings.pop("temperature", None)
            if self.chain.searches:  # a search draws its own tokens
                del settings["do_sample"]
        prompts = [row[keep].tolist() for row, keep in zip(context, attention_mask.bool(), strict=True)]
        call = self.bound(prompts)
        width = call.prompts.width
        if self.chain.searches:  # whose rows the criteria of the harness would confuse
            settings |= {"stop_strings": [text for text in stop if text]} if any(stop) else {}
        else:
            settings["stopping_criteria"] = stop_sequences_criteria(self.tokenizer, stop, width, len(prompts))
        tokens = max_length - context.shape[1] + max(0, context.shape[1] - width)
        output = call.ids(call.generate(max_new_tokens=tokens, **settings))
        if not any(call.prompts.removed):
            return torch.cat([context, output[:, width:]], dim=1)
        rows = [self.tok_encode(text, add_special_tokens=False) for text in call.texts(output)]
        padded, _ = left_padded([row[::-1] for row in rows], self.tokenizer.eos_token_id)
        return torch.cat([context, padded.flip(1).to(context.device)], dim=1)


def _after_context(texts: tuple[str, str] | None, chain: Chain) -> str:
    """Return the text after a context that the chain shortens.

    The harness moves spaces at the end of a context to the beginning of the continuation.

    Raises:
        ModeError: a rolling log-likelihood, which has no context.
    """
    if texts is None:
        raise ModeError(f"lm-eval: {chain} changes the prompt, which a rolling log-likelihood lacks; leave it out")
    context, text = texts
    return context[len(context.rstrip()) :] + text


def main(arguments: Sequence[str]) -> None:
    """Run the command line of the harness, with this model registered."""
    import sys

    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()
