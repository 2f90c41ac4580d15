"""Chains in vLLM, as a per-request logits processor of its V1 model runner.

    llm = LLM("smollm2-135m", logits_processors=[ChainProcessor])
    given = extra_args("ngram_style(table='book.safetensors') | min_p(0.05)", llm.get_tokenizer())
    llm.generate(prompts, SamplingParams(temperature=0, extra_args=given))

Served, a request says ``"vllm_xargs": {"logitkit": "min_p(0.05)"}``, and the server is started with
``--logits-processors logitkit.adapters.vllm:ChainProcessor``. Chains name files of the server: let only those send
chains who may read them.

vLLM 0.32 needs transformers below 5.20 and logitkit 5.23 or above. What is used here works with both: install
logitkit there with ``pip install --no-deps``, and pluggy, nltk, rapidfuzz, platformdirs and pyyaml by name. Where
vLLM would choose its V2 model runner (a GPU with Triton), set ``VLLM_USE_V2_MODEL_RUNNER=0``.

The engine applies a chain before its own temperature, top-k, top-p and min-p: leave those out of the request where
the chain has them. Only tokens and scores are at hand: a processor that reads the text a second time, with another
prompt or another model, is refused with the reason when the request arrives.
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
Ask = Callable[[list[int], list[int], Tensor], Tensor]


def extra_args(chain: str | Chain, tokenizer: Any) -> dict[str, str]:
    """Arguments for ``SamplingParams(extra_args=...)``, having checked the chain in full.

    Args:
        chain: what to run.
        tokenizer: the engine's own, so that a table counted with another one is refused here.

    Raises:
        ModeError, ModelError, ParameterError, UnknownNameError, FileFormatError: nothing has been generated.
    """
    read = Chain(chain)
    tokens_only.check(read, ENGINE)
    tokens_only.bound(read, ENGINE, tokenizer, tokenizer("a")["input_ids"], ends=[tokenizer.eos_token_id or 0])
    return {ARGUMENT: str(read)}


class ChainProcessor(AdapterLogitsProcessor):
    """Runs the chain that a request names under ``logitkit``; other requests pass untouched."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._config = vllm_config.model_config
        self._tokenizer: Any = None

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose chain cannot be read or cannot run here.

        Raises:
            ModeError, ParameterError, UnknownNameError, ChainError, FileFormatError: each of them a ValueError,
                as vLLM expects it, or wrapped in one.
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
        """A chain may change the likeliest token, so it runs under greedy decoding too."""
        return False

    def new_req_logits_processor(self, params: Any) -> Ask | None:
        """The chain of a request, bound to its prompt at the first step."""
        text = (params.extra_args or {}).get(ARGUMENT)
        if not text:
            return None
        chain, bound = Chain(text), None

        def ask(prompt: list[int], written: list[int], logits: Tensor) -> Tensor:
            nonlocal bound
            if bound is None:
                bound = tokens_only.bound(chain, ENGINE, self._own_tokenizer(), prompt, ends=self._ends())
            rows = torch.tensor([[*prompt, *written]], device=logits.device)
            return bound(rows, logits[None].float())[0].to(logits.dtype)

        return ask

    def _own_tokenizer(self) -> Any:
        """The engine's tokenizer, read once."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._config.tokenizer)
        return self._tokenizer

    def _ends(self) -> list[int]:
        """The model's end tokens."""
        said = (self._config.try_get_generation_config() or {}).get("eos_token_id")
        said = getattr(self._config.hf_config, "eos_token_id", None) if said is None else said
        return list(id_tuple(said))
