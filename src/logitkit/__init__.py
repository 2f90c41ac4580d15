"""Decoding strategies as plugins for Hugging Face generate: found by name, composed as a chain, measured side by side.

>>> import logitkit
>>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
>>> model, tokenizer, prompts = tiny_model(), tiny_tokenizer(), ["a prompt", "another"]
>>> call = logitkit.chain("cfg(1.5) | top_p(0.9)").bind(model, tokenizer, prompts)
>>> out = model.generate(
...     **call.inputs, logits_processor=call.processors, **call.generate_kwargs, max_new_tokens=4, do_sample=True
... )
>>> len(call.texts(out))
2

Importing logitkit and listing names imports no torch; the classes that need torch are imported on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from logitkit import errors
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.scored_text import Scored
from logitkit.registry.spec import Kind, Spec
from logitkit.registry.task_spec import TaskSpec

if TYPE_CHECKING:
    from logitkit.processors.engine.binding import Binding
    from logitkit.processors.engine.trace import Trace
    from logitkit.registry.attachment import Attachment, attach
    from logitkit.registry.call import Call
    from logitkit.registry.generation import Generation

    __version__: str

__all__ = [
    "Attachment",
    "Binding",
    "Call",
    "Chain",
    "Generation",
    "Scored",
    "Spec",
    "TaskSpec",
    "Trace",
    "__version__",
    "attach",
    "chain",
    "describe",
    "errors",
    "generate",
    "hookimpl",
    "names",
    "score",
]

# Public names whose modules import torch.
_NEEDS_TORCH = {
    "Attachment": "logitkit.registry.attachment",
    "attach": "logitkit.registry.attachment",
    "Binding": "logitkit.processors.engine.binding",
    "Call": "logitkit.registry.call",
    "Generation": "logitkit.registry.generation",
    "Trace": "logitkit.processors.engine.trace",
}


def names(kind: Kind | None = "processor") -> list[str]:
    """Return the names of all installed processors, or of another kind, sorted.

    Args:
        kind: ``processor``, ``search`` or ``selector``; None: every kind.

    >>> {"cfg", "top_p"} <= set(names()), "best_of" in names("selector")
    (True, True)
    """
    return default_registry().names(kind)


def describe(name: str) -> Spec:
    """Return the Spec of a processor: what it does, its source, its parameters and its limits.

    Args:
        name: a name from `names`.

    Raises:
        UnknownNameError: no plugin offers the name; the error shows the closest known name.
        PluginError: the plugin of this name is broken.

    >>> describe("cfg").source
    'arXiv:2306.17806'
    """
    return default_registry().describe(name)


def chain(chain: str | Sequence[Mapping[str, Any]] | Chain = "") -> Chain:
    """Return a chain; arguments and errors as for `Chain`.

    Args:
        chain: text such as ``"uscd(rho=0.7) | top_p(0.9)"``, or a list of ``{"name": ..., "params": {...}}``.

    >>> chain("top_k(5)").as_data()
    [{'name': 'top_k', 'params': {'top_k': 5}}]
    """
    return Chain(chain)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Any,
    chain: str | Sequence[Mapping[str, Any]] | Chain = "",
    *,
    trace: bool = False,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    template: Mapping[str, Any] | None = None,
    **generate_kwargs: Any,
) -> Generation:
    """Bind a chain to prompts and generate.

    Args:
        model, tokenizer, prompts, trace, tokenizers, template: as in `Chain.bind`.
        chain: text, list or Chain; empty is plain decoding.
        resources: objects that parameters of the chain name, such as ``{"large": other_model}``.
        generate_kwargs: settings of ``model.generate``.

    Returns:
        A `Generation` with ``texts``, ``ids``, ``trace``, and ``weights`` where the chain has a search.

    Raises:
        ChainError, ParameterError, UnknownNameError, PromptError, ModelError: before the model runs.
        ModeError: settings under which the chain would be ignored or wrong.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> done = generate(tiny_model(), tiny_tokenizer(), "ab", chain="cfg(2.0)", max_new_tokens=3, do_sample=False)
    >>> len(done.texts), done.ids.shape, done.trace.calls
    (1, torch.Size([1, 5]), 3)
    """
    from logitkit.registry.generation import Generation

    options: dict[str, Any] = {"trace": trace, "tokenizers": tokenizers, "template": template}
    call = Chain(chain).bind(model, tokenizer, prompts, **options, resources=resources)
    output = call.generate(**generate_kwargs)
    weights = None if call.search is None else call.search.log_weights
    return Generation(texts=call.texts(output), ids=call.ids(output), trace=call.trace.plain(), weights=weights)


def score(
    model: Any,
    tokenizer: Any,
    prompts: Any,
    continuations: str | Sequence[str],
    chain: str | Sequence[Mapping[str, Any]] | Chain = "",
    *,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    template: Mapping[str, Any] | None = None,
) -> list[Scored]:
    """Return the log-probabilities of given texts under a chain.

    Args:
        model, tokenizer, tokenizers, template: as in `Chain.bind`; the model must be decoder-only.
        prompts: one text or chat for all continuations, or one prompt for each, as in `Chain.bind`.
        continuations: one text, or several, none empty.
        chain: text, list or Chain; empty is plain decoding.
        resources: objects that parameters of the chain name.

    Returns:
        A `Scored` for each continuation: natural log-probabilities of its tokens in nats, ``.logp`` and ``.total``.

    Raises:
        ModelError: a model with an encoder, or a text longer than the context of the model.
        ParameterError: an empty continuation, text with lone surrogates, or another number of prompts than of
            continuations.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> likely, banned = score(tiny_model(), tiny_tokenizer(), "ab", ["cd", "e"], chain="suppress_tokens([68])")
    >>> len(likely.logp), banned.total  # token 68 is the letter e
    (2, -inf)
    """
    from logitkit.registry import scoring

    several = isinstance(continuations, Iterable) and not isinstance(continuations, str)
    texts: list[Any] = list(continuations) if several else [continuations]  # `scoring.score` refuses other values
    options: dict[str, Any] = {"resources": resources, "tokenizers": tokenizers, "template": template}
    scored, _ = scoring.score(Chain(chain), model, tokenizer, prompts, texts, **options)
    return scored


def __getattr__(name: str) -> Any:
    """Import what needs torch, or read the version from the metadata of the distribution."""
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(_NEEDS_TORCH[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("logitkit")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
