"""Decoding strategies as plugins for Hugging Face generate: found by name, composed as a chain, measured side by side.

    call = logitkit.chain("uscd(rho=0.7)").bind(model, tokenizer, prompts)
    out = model.generate(**call.inputs, logits_processor=call.processors, max_new_tokens=64)
    call.texts(out)

Importing logitkit and listing names imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.spec import Spec
from logitkit.registry.task_spec import TaskSpec

if TYPE_CHECKING:
    from logitkit.registry.call import Generation

__all__ = ["Chain", "Spec", "TaskSpec", "chain", "describe", "generate", "hookimpl", "names"]


def names() -> list[str]:
    """Names of all installed processors, sorted."""
    return default_registry().names()


def describe(name: str) -> Spec:
    """The Spec of a processor: what it does, where it is from, its parameters and its limits."""
    return default_registry().describe(name)


def chain(chain: str | Sequence[Mapping[str, Any]] | Chain = "") -> Chain:
    """Read a chain from text (``"uscd(rho=0.7) | top_p(0.9)"``) or a list of ``{name, params}``."""
    return Chain(chain)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Any,
    *,
    chain: str | Sequence[Mapping[str, Any]] | Chain = "",
    trace: bool = False,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    **generate_kwargs: Any,
) -> Generation:
    """Bind a chain, generate, and return the continuations.

    Args:
        model, tokenizer, prompts, trace, tokenizers: as in `Chain.bind`.
        chain: text, list or Chain; empty is plain decoding.
        resources: objects that the chain's parameters name, such as ``{"large": other_model}``.
        generate_kwargs: anything ``model.generate`` takes.

    Returns:
        A Generation: ``.texts`` (continuations), ``.ids`` and ``.trace``.
    """
    from logitkit.registry.call import Generation

    call = Chain(chain).bind(model, tokenizer, prompts, trace=trace, tokenizers=tokenizers, **(resources or {}))
    output = call.generate(**generate_kwargs)
    return Generation(texts=call.texts(output), ids=call.ids(output), trace=call.trace)
