"""What the laws are run on: tiny models with exact arithmetic to compare, and processors bound to them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from logitkit.errors import ParameterError
from logitkit.registry.call import bind
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec

TEXTS = ["a prompt of text", "the other prompt"]  # of one length, so that padding is a choice
WIDTH = 272  # of the tiny models' scores: more than the tokenizer has, as padded vocabularies are


@functools.cache
def tiny_tokenizer() -> Any:
    """A tokenizer of single bytes with begin, end and pad tokens."""
    vocabulary = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@functools.cache
def tiny_model(seed: int = 0) -> Any:
    """A random two-layer Llama over the tiny tokenizer, in fp32, sharp enough that its choices are clear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=WIDTH,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=512,
                initializer_range=0.3,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    return model.eval()


class Subject:
    """A processor under test: how to make fresh ones, and rows to ask them about.

    Args:
        name: what it is called in reports.
        make: makes a fresh processor for prompts with so many left-padding tokens on the first.
        neutral: for each neutral parameter value, makes a processor that must change nothing.
        declared: laws it declares it cannot keep, with the reason.
        tokenizer: the tokenizer of the prompts; None: the tiny one.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Any],
        *,
        neutral: Mapping[str, Callable[[], Any]] | None = None,
        declared: Mapping[str, str] | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.name, self._make, self.neutral, self.declared = name, make, dict(neutral or {}), dict(declared or {})
        self.tokenizer = tokenizer

    def make(self, padding: int = 0) -> Any:
        """Return a fresh processor, bound to the prompts of `rows` with the same padding."""
        return self._make(padding)

    def rows(self, length: int = 12, padding: int = 0, seed: int = 0) -> Tensor:
        """Rows that continue the two prompts with ``length`` tokens, ``[2, width + length]``."""
        generator = torch.Generator().manual_seed(seed)
        inputs = prompts(padding, self.tokenizer)
        tail = torch.randint(0, 256, (2, length), generator=generator)
        return torch.cat([inputs["input_ids"], tail], dim=1)

    def scores(self, seed: int = 0, rows: int = 2) -> Tensor:
        """Logits to be processed, ``[rows, vocab]``; ids beyond the tokenizer are impossible."""
        scores = 3 * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
        scores[:, len(tiny_tokenizer()) :] = -torch.inf
        return scores


def prompts(padding: int = 0, tokenizer: Any = None) -> dict[str, Tensor]:
    """The two prompts as inputs; both grow by ``padding`` tokens on the left."""
    tokenizer = tokenizer or tiny_tokenizer()
    ids = torch.tensor(tokenizer(TEXTS)["input_ids"])
    pads = torch.full((2, padding), tokenizer.pad_token_id)
    mask = torch.cat([torch.zeros_like(pads), torch.ones_like(ids)], dim=1)
    return {"input_ids": torch.cat([pads, ids], dim=1), "attention_mask": mask}


def subject_of(thing: Spec | str | Callable[[], Any]) -> Subject:
    """Make a subject of a name, a Spec, or a class or factory that needs no arguments.

    Raises:
        ParameterError: something else.
    """
    if isinstance(thing, str):
        return _of_spec(default_registry().describe(thing), default_registry())
    if isinstance(thing, Spec):
        return _of_spec(thing, Registry([Plugin(name=thing.name, origin=thing.plugin, specs=(thing,))]))
    if callable(thing):
        return Subject(getattr(thing, "__name__", type(thing).__name__), lambda padding: thing())
    raise ParameterError("check_processor", "subject", "a name, a Spec, or a factory", thing)


def _of_spec(spec: Spec, registry: Registry) -> Subject:
    """A spec's example, bound to the tiny model."""
    chain = Chain(spec.example or spec.name, registry=registry)
    (_, given), *_ = chain.steps
    fields = {name: field.json_schema_extra for name, field in spec.model.model_fields.items()}
    neutral = {
        name: extra["neutral"] for name, extra in fields.items() if isinstance(extra, dict) and "neutral" in extra
    }
    return Subject(
        spec.name,
        lambda padding: _bound(chain, spec, padding),
        neutral={
            f"{name}={value}": functools.partial(
                _bound, Chain([{"name": spec.name, "params": {**given, name: value}}], registry=registry), spec, 0
            )
            for name, value in neutral.items()
        },
        declared=spec.laws,
        tokenizer=_resources(spec).get("tokenizer"),
    )


def _resources(spec: Spec) -> dict[str, Any]:
    """What the laws bind a spec's example with: two more tiny models, and what its fixture makes."""
    resources: dict[str, Any] = {"other": tiny_model(1), "third": tiny_model(2)}
    if spec.fixture:
        module, _, function = spec.fixture.partition(":")
        resources |= getattr(importlib.import_module(module), function)(tiny_model(), tiny_tokenizer())
    return resources


def _bound(chain: Chain, spec: Spec, padding: int) -> Any:
    """Bind a chain of one to the tiny model; the processor itself, without the composite."""
    resources = _resources(spec)
    model, tokenizer = resources.pop("model", tiny_model()), resources.pop("tokenizer", tiny_tokenizer())
    text = str(chain)
    tokenizers = resources.pop("tokenizers", None)
    used = {name: value for name, value in resources.items() if f"'{name}'" in text}
    inputs = prompts(padding, tokenizer)
    call = bind(chain, model, tokenizer, inputs, trace=False, tokenizers=tokenizers, resources=used)
    return call.composite.parts[0][1]
