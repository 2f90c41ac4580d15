"""Chains in vLLM, as a logits processor for each request.

    llm = LLM("smollm2-135m", logits_processors=[ChainProcessor])
    arguments = extra_args("ngram_style(table='book.safetensors') | min_p(0.05)", llm.get_tokenizer())
    llm.generate(prompts, SamplingParams(temperature=0, extra_args=arguments))

On a server started with ``--logits-processors logitkit.adapters.vllm:ChainProcessor``, a request has the field
``"vllm_xargs": {"logitkit": "min_p(0.05)"}``. A chain may name files on the server, so accept chains only from
clients that may read these files.

vLLM 0.32 requires transformers below 5.20, and logitkit requires 5.23 or above. This module works with both: install
logitkit with ``pip install --no-deps``, and pluggy, nltk, platformdirs and pyyaml by name.

vLLM has two model runners with different interfaces for processors. `ChainProcessor` has those that the installed vLLM
has, so the one that vLLM chooses finds its own.

vLLM applies a chain before its own temperature, top-k, top-p and min-p. Leave these out of a request whose chain has
them. A processor that needs extra forwards is refused, with the reason, when the request arrives.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from logitkit.adapters import tokens_only
from logitkit.adapters.vllm_slots import SlotChains
from logitkit.errors import ParameterError, closest
from logitkit.processors.engine.composite import Composite
from logitkit.processors.model_facts import id_tuple
from logitkit.registry.chain import Chain

ENGINE, ARGUMENT = "vllm", "logitkit"
RequestProcessor = Callable[[list[int], list[int], Tensor], Tensor]  # prompt ids, output ids, logits [vocab]
INTERFACES = (
    ("vllm.v1.sample.logits_processor", "AdapterLogitsProcessor"),  # the V1 model runner
    ("vllm.v1.worker.gpu.sample.logits_processor", "LogitsProcessor"),  # the V2 model runner
)


def interfaces() -> tuple[type, ...]:
    """Return the base classes of processors that the installed vLLM has.

    Raises:
        ImportError: it has none of those that are known.
    """
    found = []
    for module, name in INTERFACES:
        try:
            found.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue
    if not found:
        known = " or ".join(f"{module}.{name}" for module, name in INTERFACES)
        raise ImportError(f"vllm: must have {known}, got neither; install a version that logitkit names")
    return tuple(found)


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


class ChainProcessor(*interfaces()):  # type: ignore[misc]
    """Applies the chain in the ``logitkit`` argument of a request; requests without one are unchanged.

    Args:
        vllm_config: of the engine.
        runner: what the model runner passes: the device (V1), or the states of its requests (V2).
        is_pin_memory: V1 alone.
    """

    def __init__(self, vllm_config: Any, runner: Any, is_pin_memory: bool = False) -> None:
        self._config = vllm_config.model_config
        self._tokenizer: Any = None
        if isinstance(runner, torch.device):
            super().__init__(vllm_config, runner, is_pin_memory)
        else:
            self._slots = SlotChains(runner, _chain_of, self._bound)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose chain cannot be read or cannot run in this engine.

        Raises:
            ValueError: the kind that vLLM reports to the client; a ModeError, ParameterError, ChainError or
                FileFormatError, or a ValueError for an unknown name.
        """
        given = sampling_params.extra_args or {}
        for key in given:
            if key != ARGUMENT and closest(str(key).lower(), [ARGUMENT]):
                raise ParameterError(ENGINE, str(key), f"spelled {ARGUMENT!r}", given[key])
        text = given.get(ARGUMENT)
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
        chain = _chain_of(params)
        if chain is None:
            return None
        composite: Composite | None = None

        def process(prompt: list[int], output: list[int], logits: Tensor) -> Tensor:
            nonlocal composite
            composite = composite or self._bound(chain, prompt)
            rows = torch.tensor([[*prompt, *output]], device=logits.device)
            return composite(rows, logits[None].float())[0].to(logits.dtype)

        return process

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Return whether the request that enters a slot of the V2 model runner has a chain."""
        return self._slots.add_request(req_idx, sampling_params)

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Return scores with the chain of each row applied; ``ctx`` is the layout of a step of the V2 model runner."""
        if ctx is None:
            applied: Tensor = super().apply(logits)
            return applied
        return self._slots.apply(logits, ctx)

    def _bound(self, chain: Chain, prompt: list[int]) -> Composite:
        """Return a chain bound to the token ids of a prompt."""
        return tokens_only.bound(chain, ENGINE, self._own_tokenizer(), prompt, ends=self._ends())

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


def _chain_of(params: Any) -> Chain | None:
    """Return the chain of a request, or None."""
    text = (params.extra_args or {}).get(ARGUMENT)
    return Chain(text) if text else None
