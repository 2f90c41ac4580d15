"""Chains in vLLM, as a per-request logits processor of its V1 model runner.

    llm = LLM("smollm2-135m", logits_processors=[ChainProcessor])
    arguments = extra_args("ngram_style(table='book.safetensors') | min_p(0.05)", llm.get_tokenizer())
    llm.generate(prompts, SamplingParams(temperature=0, extra_args=arguments))

On a server started with ``--logits-processors logitkit.adapters.vllm:ChainProcessor``, a request has the field
``"vllm_xargs": {"logitkit": "min_p(0.05)"}``. A chain may name files on the server, so accept chains only from
clients that may read these files.

vLLM 0.32 requires transformers below 5.20, and logitkit requires 5.23 or above. This module works with both: install
logitkit with ``pip install --no-deps``, and pluggy, nltk, platformdirs and pyyaml by name. On a GPU with
Triton, where vLLM chooses its V2 model runner, set ``VLLM_USE_V2_MODEL_RUNNER=0``.

vLLM applies a chain before its own temperature, top-k, top-p and min-p. Leave these out of a request whose chain has
them. A processor that needs extra forwards is refused, with the reason, when the request arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from logitkit.adapters import tokens_only
from logitkit.errors import ParameterError
from logitkit.processors.model_facts import id_tuple
from logitkit.registry.chain import Chain

ENGINE, ARGUMENT = "vllm", "logitkit"
RequestProcessor = Callable[[list[int], list[int], Tensor], Tensor]  # prompt ids, output ids, logits [vocab]


def extra_args(chain: str | Chain, tokenizer: Any) -> dict[str, str]:
    """Return arguments for ``SamplingParams(extra_args=...)`` after all checks of the chain.

    Args:
        chain: text or Chain.
        tokenizer: of the engine; an n-gram table counted with another tokenizer is refused.

    Raises:
        ModeError, ModelError, ParameterError, UnknownNameError, FileFormatError: before anything is generated.
    """
    read = Chain(chain)
    tokens_only.check(read, ENGINE)
    tokens_only.bound(read, ENGINE, tokenizer, tokenizer("a")["input_ids"], ends=[tokenizer.eos_token_id or 0])
    return {ARGUMENT: str(read)}


class ChainProcessor(AdapterLogitsProcessor):
    """Applies the chain in the ``logitkit`` argument of a request; requests without one are unchanged."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._config = vllm_config.model_config
        self._tokenizer: Any = None

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose chain cannot be read or cannot run in this engine.

        Raises:
            ValueError: the kind that vLLM reports to the client; a ModeError, ParameterError, ChainError or
                FileFormatError, or a ValueError for an unknown name.
        """
        text = (sampling_params.extra_args or {}).get(ARGUMENT)
        if text is None:
            return
        if not isinstance(text, str):
            raise ParameterError(ENGINE, ARGUMENT, "a chain as text", text)
        try:
            tokens_only.check(Chain(text), ENGINE)
        except LookupError as error:  # an unknown name
            raise ValueError(str(error)) from error

    def is_argmax_invariant(self) -> bool:
        """Return False: a chain may change the likeliest token, so greedy decoding needs the chain too."""
        return False

    def new_req_logits_processor(self, params: Any) -> RequestProcessor | None:
        """Return the chain of a request as a processor, which is bound to the prompt at its first step."""
        text = (params.extra_args or {}).get(ARGUMENT)
        if not text:
            return None
        chain, bound = Chain(text), None

        def process(prompt: list[int], output: list[int], logits: Tensor) -> Tensor:
            nonlocal bound
            if bound is None:
                bound = tokens_only.bound(chain, ENGINE, self._own_tokenizer(), prompt, ends=self._ends())
            rows = torch.tensor([[*prompt, *output]], device=logits.device)
            return bound(rows, logits[None].float())[0].to(logits.dtype)

        return process

    def _own_tokenizer(self) -> Any:
        """Return the tokenizer of the engine, loaded once."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._config.tokenizer)
        return self._tokenizer

    def _ends(self) -> list[int]:
        """Return the end tokens of the model."""
        ends = (self._config.try_get_generation_config() or {}).get("eos_token_id")
        return list(id_tuple(getattr(self._config.hf_config, "eos_token_id", None) if ends is None else ends))
