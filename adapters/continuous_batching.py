"""Chains in transformers' continuous batching (`generate_batch`'s manager, `transformers serve`'s engine).

    manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=synchronous())
    install(manager, tokenizer, "no_repeat_ngram(3)")
    manager.start()
    manager.add_request(ids, logitkit="min_p(0.05)")  # this request's own chain

transformers builds the processors of continuous batching from the generation config alone, and drops those that are
passed to ``generate``. A documented way to add one does not exist. What is not documented stays in this module:
``ContinuousBatchingManager.logit_processor``, and of a request ``initial_tokens``, ``generated_tokens``, ``error``,
``_true_initial_tokens`` and ``_new_tokens_limit``. Versions read: transformers 5.23 and 5.24.

A chain is given the tokens of each request and its scores, not the model, so a processor that needs extra forwards is
refused. The tokens must be known before the forward, so asynchronous batches and recorded graphs are refused too.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from logitkit.adapters import tokens_only
from logitkit.errors import ModeError, ParameterError
from logitkit.processors.engine.composite import Composite
from logitkit.processors.model_facts import id_tuple
from logitkit.registry.chain import Chain
from logitkit.registry.generate_settings import SAMPLING, owned_settings

ENGINE, ARGUMENT = "continuous batching", "logitkit"
KEPT = 1024  # bound chains, the least recently used of which makes room


def synchronous(**settings: Any) -> ContinuousBatchingConfig:
    """Return settings of continuous batching in which the tokens are known before each forward, as chains need.

    Args:
        settings: further ones, such as ``num_blocks`` and ``max_batch_tokens``; without them transformers fills 60 % of
            the memory with pages of the cache.

    >>> synchronous(num_blocks=64).use_async_batching
    False
    """
    return ContinuousBatchingConfig(**{"use_async_batching": False, "use_cuda_graph": False, **settings})


def install(manager: Any, tokenizer: Any, chain: str | Chain = "") -> None:
    """Let a manager of continuous batching carry out chains; call it before ``manager.start()``.

    A request names its chain by ``add_request(ids, logitkit="...")``; one that names none has the default chain. The
    chain comes before the temperature, top-k and top-p of the generation config, as in ``generate``. A request whose
    chain is refused, or fails, ends with the error in ``GenerationOutput.error``; the others go on.

    Args:
        manager: of ``model.init_continuous_batching``, not started; asynchronous batching and graphs must be off, as in
            `synchronous`.
        tokenizer: of the model.
        chain: the default chain; empty for plain decoding.

    Raises:
        ModeError: a processor needs a model; the manager runs already, or its settings are others; the generation
            config has a setting that the chain replaces, such as a temperature.
        ChainError, UnknownNameError, ParameterError, FileFormatError: a chain that cannot be read.
    """
    if manager.is_running():
        raise ModeError(f"{ENGINE}: install must come before manager.start(), got a manager that runs")
    config = manager.continuous_batching_config
    graphs = any(config.use_cuda_graph or ()) if isinstance(config.use_cuda_graph, tuple) else config.use_cuda_graph
    compiled = config.varlen_compile_config is not None or config.decode_compile_config is not None
    if config.use_async_batching or graphs or compiled:
        raise ModeError(
            f"{ENGINE}: asynchronous batches, graphs and compilation must be off, since a chain needs the tokens "
            "before the forward; pass continuous_batching_config=synchronous() of logitkit.adapters.continuous_batching"
        )
    rows = ChainRows(tokenizer, Chain(chain), manager.generation_config)
    rows.check(rows.default)
    manager.logit_processor = CheckedList(rows, manager.logit_processor.logits_processor)


class ChainRows(ContinuousBatchingLogitsProcessor):
    """Applies to each request the chain that it names.

    Args:
        tokenizer: of the model.
        default: chain of requests that name none.
        config: generation config of the manager.
    """

    def __init__(self, tokenizer: Any, default: Chain, config: Any) -> None:
        self.supported_kwargs, self.ignored_kwargs = {ARGUMENT: str}, ()
        self.default = default
        self._tokenizer, self._config = tokenizer, config
        self._ends = [end for end in id_tuple(config.eos_token_id) if end >= 0]
        self._bound: OrderedDict[tuple[str | None, tuple[int, ...]], Composite | None] = OrderedDict()
        self._requests: list[Any] = []

    def check(self, chain: Chain) -> None:
        """Refuse a chain that cannot run here.

        Raises:
            ModeError: names the processor and the reason, or the setting that the chain replaces.
        """
        tokens_only.check(chain, ENGINE)
        for name, neutral in owned_settings(chain).items():
            value = getattr(self._config, name, None)
            if value not in (None, neutral) and (self._config.do_sample or name not in SAMPLING):
                raise ModeError(
                    f"{ENGINE}: {name} must be left to the chain {str(chain)!r}, got {value} in the generation config; "
                    f"set {name}={neutral} there"
                )

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """Fill the storage of arguments, which this processor does not use."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        """Remember the requests of the next step, in the order of their rows."""
        self._requests = [request.state for request in requests_with_new_token]
        return torch.zeros(len(self._requests), dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        """Return the scores [tokens, vocabulary] with the chain of each request applied to its row."""
        scores = scores.clone()
        for number, state in enumerate(self._requests):
            try:
                scores[number] = self._row(state, scores[number])
            except Exception as error:  # of one request alone; the loop would end all of them
                state.error, state._new_tokens_limit = str(error), 0
        return scores

    def _row(self, state: Any, scores: Tensor) -> Tensor:
        """Return the scores of one request."""
        prompt = state.initial_tokens[: state._true_initial_tokens or None]
        bound = self._composite(state.logit_processor_kwargs.get(ARGUMENT), prompt)
        if bound is None:
            return scores
        tokens = [*state.initial_tokens, *state.generated_tokens]
        return bound(torch.tensor([tokens], device=scores.device), scores[None])[0]

    def _composite(self, text: str | None, prompt: list[int]) -> Composite | None:
        """Return a chain bound to a prompt, which is read and bound at the first step; None for plain decoding."""
        key = text, tuple(prompt)
        if key not in self._bound:
            chain = self.default if text is None else Chain(text)
            bound = tokens_only.bound(chain, ENGINE, self._tokenizer, prompt, ends=self._ends) if chain.steps else None
            self._bound[key] = bound
            if len(self._bound) > KEPT:
                self._bound.popitem(last=False)
        self._bound.move_to_end(key)
        return self._bound[key]


class CheckedList(ContinuousBatchingLogitsProcessorList):
    """The processors of a manager; a request with a wrong chain is refused when it arrives.

    Args:
        rows: the chains, which come first.
        others: processors of the generation config.
    """

    def __init__(self, rows: ChainRows, others: list[Any]) -> None:
        super().__init__(LogitsProcessorList([rows, *others]))
        self._rows = rows
        self.tensors_required = sum(isinstance(one, ContinuousBatchingLogitsProcessor) for one in self.logits_processor)

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Check the arguments of a request.

        Raises:
            ParameterError: the chain is no text.
            ModeError, ChainError, UnknownNameError, FileFormatError: as `install`.
        """
        text = kwargs.get(ARGUMENT)
        if text is not None and not isinstance(text, str):
            raise ParameterError(ENGINE, ARGUMENT, "a chain as text", text)
        super().check_kwargs(kwargs)
        if text is not None:
            self._rows.check(Chain(text))
