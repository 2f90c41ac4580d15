"""The example of a Spec, with the models, tokenizers and tables that binding it needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from logitkit.errors import LogitkitError, PluginError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.byte_level.tokenizer import byte_tokenizer
from logitkit.processors.ngram.table import NgramTable
from logitkit.registry.bind import bind
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain
from logitkit.registry.laws.tiny_models import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec

TOKENS, PROMPTS = 4, ["a prompt of text", "the other prompt"]  # of `run_example`
SENTENCES = ("a prompt of the other text", "the text of a prompt, the other one")  # counted by an n-gram table


@dataclass(frozen=True, eq=False, kw_only=True)
class Example:
    """The chain of a Spec's example and the objects that the chain is bound to.

    Attributes:
        chain: one processor, the Spec's.
        model, tokenizer: the generating model; a `ByteModel` where the Spec refuses the mode ``tokens``.
        resources: the objects of ``example_resources`` by name.
        tokenizers: tokenizers of the models among them that have their own.
    """

    chain: Chain
    model: Any
    tokenizer: Any
    resources: Mapping[str, Any] = field(default_factory=dict)
    tokenizers: Mapping[str, Any] = field(default_factory=dict)

    def bind(self, prompts: Any, chain: Chain | None = None) -> Call:
        """Bind the example, or another chain with the same names, to prompts of the generating model."""
        return bind(
            chain or self.chain,
            self.model,
            self.tokenizer,
            prompts,
            trace=False,
            tokenizers=self.tokenizers,
            resources=self.resources,
            warn=False,  # the laws bind neutral values and plain prompts
        )


def example_chain(spec: Spec, registry: Registry | None = None) -> Chain:
    """Return the example of a Spec as a chain; without one, the processor with its defaults.

    Args:
        spec: the processor.
        registry: where the name is looked up; by default everything installed.

    Raises:
        PluginError: the target is broken, or the example is no chain of this processor alone.

    >>> import logitkit
    >>> example_chain(logitkit.describe("cfg"))
    Chain("cfg(scale=1.7, negative='a negative prompt')")
    """
    must = f"{spec.owner}: example must be a chain of this processor alone, got {spec.example!r}"
    try:
        chain = Chain(spec.example or spec.name, registry=registry)
    except PluginError:
        raise  # a fault of the target, which names its remedy
    except (LogitkitError, ValueError) as error:
        raise PluginError(f"{must}; {error}") from error
    if [name for name, _ in chain.steps] != [spec.name]:
        raise PluginError(f"{must}; correct the Spec")
    return chain


def example_of(
    spec: Spec,
    registry: Registry | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    another: Callable[[int], Any] = tiny_model,
) -> Example:
    """Return the example of a Spec with every object that it names.

    Args:
        spec: the processor.
        registry: where its name is looked up; by default everything installed.
        model, tokenizer: the generating model; by default `tiny_model` and `tiny_tokenizer`.
        another: returns further models with this tokenizer, numbered from 1.

    Raises:
        PluginError: the example or a function named in ``example_resources`` is broken.
    """
    chain = example_chain(spec, registry)
    model = tiny_model() if model is None else model
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    resources, tokenizers = _resources(spec, chain, model, tokenizer, another)
    if "tokens" in spec.modes:
        model, tokenizer = ByteModel(model, tokenizer), byte_tokenizer()
    return Example(chain=chain, model=model, tokenizer=tokenizer, resources=resources, tokenizers=tokenizers)


def _resources(
    spec: Spec, chain: Chain, model: Any, tokenizer: Any, another: Callable[[int], Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the objects of ``example_resources`` by name, and the tokenizers of those that have their own."""
    resources: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    numbers = iter(range(1, len(spec.example_resources) + 1))
    for name, kind in spec.example_resources.items():
        if name not in chain.resource_names:
            raise PluginError(
                f"{spec.owner}: example_resources must be named by the example, got {name!r}; "
                "list the parameter that names it in needs_models, needs_tables or needs_files"
            )
        if kind == "model":
            resources[name] = another(next(numbers))
        elif kind == "byte_model":
            resources[name] = ByteModel(another(next(numbers)), tokenizer)
        elif kind == "foreign_model":
            resources[name], tokenizers[name] = foreign_model(), foreign_tokenizer()
        elif kind == "ngram_table":
            resources[name] = NgramTable.train(SENTENCES, tokenizer)
        else:
            resources[name] = _made_by(kind, spec, model, tokenizer)
    return resources, tokenizers


def _made_by(function: str, spec: Spec, model: Any, tokenizer: Any) -> Any:
    """Call the function ``module:function`` of a plugin with the generating model and its tokenizer."""
    module, _, attribute = function.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(model, tokenizer)
    except Exception as error:
        raise PluginError(
            f"{spec.owner}: example_resources must be made by {function}(model, tokenizer), "
            f"got {type(error).__name__}: {error}; correct the function"
        ) from error


def run_example(spec: Spec) -> None:
    """Generate `TOKENS` tokens with the example of a Spec on the generating model of the laws; errors are raised.

    >>> import logitkit
    >>> run_example(logitkit.describe("cfg"))
    """
    example = example_of(spec, Registry([Plugin(name=spec.name, origin=spec.plugin, specs=(spec,))]))
    call = example.bind(PROMPTS)
    call.texts(call.generate(max_new_tokens=TOKENS, do_sample=False))
