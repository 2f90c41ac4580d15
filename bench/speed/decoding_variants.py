"""The ways of decoding that are measured side by side, as data: to measure another, add a line to `WAYS`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from logitkit.errors import UnknownNameError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry

Resources = Callable[[Any, Any], Mapping[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Way:
    """One way of decoding.

    Attributes:
        name: what its row is called.
        chain: the chain; None: ``model.generate`` without one.
        streams: how `Call.generate` reads second streams; None: the chain is handed to ``model.generate``.
        settings: further settings of generate.
        resources: makes what the chain names, of (model, tokenizer); under ``tokenizers`` those of models among it,
            under ``model`` and ``tokenizer`` what decodes in their place.
        needs: a processor without which the row is left out.
    """

    name: str
    chain: str | None = None
    streams: Literal["auto", "fused", "lazy"] | None = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources | None = None
    needs: str = ""

    def named(self, model: Any, tokenizer: Any) -> Mapping[str, Any]:
        """What the chain names, made before any run is timed."""
        return self.resources(model, tokenizer) if self.resources else {}

    def run(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[str],
        settings: Mapping[str, Any],
        named: Mapping[str, Any] | None = None,
    ) -> str:
        """Bind the chain and decode once; say what happened."""
        settings, named = {**settings, **self.settings}, dict(named or {})
        for thing in named.values():
            if isinstance(thing, ByteModel):
                thing.release()  # or it would recall what it read in the round before
        model, tokenizer = named.pop("model", model), named.pop("tokenizer", tokenizer)
        tokenizers = named.pop("tokenizers", {})
        tokenizers |= {name: tokenizer for name, value in named.items() if value is model}
        call = Chain(self.chain or "").bind(model, tokenizer, list(prompts), tokenizers=tokenizers, **named)
        if self.chain is None:
            model.generate(**call.inputs, **settings)
            return ""
        if self.streams is None:
            model.generate(**call.inputs, logits_processor=call.processors, **settings)
            return ""
        call.generate(streams=self.streams, **settings)
        return _told(call.trace)


def _told(trace: Any) -> str:
    """What a trace says in few words."""
    said = [] if "no stream" in trace.fusion else [trace.fusion]
    said += [f"fired on {share:.2f} of rows" for share in trace.fired.values()]
    read = {name: count / trace.calls for name, count in trace.forwards.items() if count}
    return "; ".join(said + [f"{name} read alone at {share:.2f} of steps" for name, share in read.items()])


def example(name: str) -> Way:
    """The example of a registered processor's Spec; models that it names are the generating model over again."""

    def resources(model: Any, tokenizer: Any) -> Mapping[str, Any]:
        spec = default_registry().describe(name)
        every: dict[str, Any] = {"other": model, "third": model}
        if spec.fixture:
            module, _, function = spec.fixture.partition(":")
            every |= getattr(importlib.import_module(module), function)(model, tokenizer)
        text = str(Chain(spec.example))
        return {key: value for key, value in every.items() if f"'{key}'" in text or key == "tokenizers"}

    chain = default_registry().describe(name).example or name
    return Way(name=chain, chain=chain, resources=resources, needs=name)


def code_table(model: Any, tokenizer: Any) -> Mapping[str, Any]:
    """N-gram counts of some modules of the standard library, which are the same everywhere."""
    table = importlib.import_module("logitkit.processors.ngram.table").NgramTable
    modules = ("argparse", "ast", "datetime", "inspect", "statistics", "tarfile", "typing", "zipfile")
    return {"code": table.train([inspect.getsource(importlib.import_module(name)) for name in modules], tokenizer)}


def two_byte_models(model: Any, tokenizer: Any) -> Mapping[str, Any]:
    """The model as one over bytes, and over again: with another tolerance it counts as another model."""
    first, second = (ByteModel(model, tokenizer, tolerance=tolerance) for tolerance in (1e-6, 2e-6))
    byte_tokenizer = importlib.import_module("logitkit.processors.byte_level.tokenizer").byte_tokenizer
    return {"model": first, "tokenizer": byte_tokenizer(), "second": second}


PLAIN = Way(name="plain generate")
WAYS = (
    PLAIN,
    Way(name="identity chain", chain="uscd(rho=0.0)", streams=None),
    Way(name="transformers guidance_scale=1.5", settings={"guidance_scale": 1.5}),
    Way(name="cfg(1.5), fused", chain="cfg(1.5)", streams="fused"),
    Way(name="cfg(1.5), lazy", chain="cfg(1.5)", streams="lazy"),
    Way(name="uscd()", chain="uscd()"),
    Way(name="uscd(), lazy", chain="uscd()", streams="lazy"),
    Way(name="uscd(gate=0.626)", chain="uscd(gate=0.626)"),
    Way(name="uscd(gate=1.0)", chain="uscd(gate=1.0)"),
    Way(name="ngram_style", chain="ngram_style(table='code')", resources=code_table, needs="ngram_style"),
    Way(
        name="byte_ensemble of two, bytes",
        chain="byte_ensemble(models=['second'])",
        resources=two_byte_models,
        needs="byte_ensemble",
    ),
)
EXAMPLES = ("ensemble", "core", "byte_boundary")  # rows of their own where these are registered


def ways() -> tuple[Way, ...]:
    """All ways whose processors are registered, plain first, those of other distributions last."""
    registry = default_registry()
    names = registry.names()
    known = tuple(way for way in WAYS if not way.needs or way.needs in names)
    theirs = [name for name in names if registry.describe(name).plugin != "logitkit"]
    return known + tuple(example(name) for name in [*EXAMPLES, *theirs] if name in names)


def chosen(parts: Sequence[str]) -> tuple[Way, ...]:
    """Plain, and the ways whose name contains one of these; all for none.

    Raises:
        UnknownNameError: a part that is in no name.
    """
    every = ways()
    for part in parts:
        if not any(part in way.name for way in every):
            raise UnknownNameError("way of decoding", part, [way.name for way in every])
    return tuple(way for way in every if way is PLAIN or not parts or any(part in way.name for part in parts))
