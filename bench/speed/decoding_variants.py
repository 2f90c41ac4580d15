"""Decoding variants that are timed side by side, as data. To time another variant, add an entry to `VARIANTS`."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from logitkit.errors import UnknownNameError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.engine.trace import Trace
from logitkit.registry.bind import bind
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.examples import example_of

Resources = Callable[[Any, Any], Mapping[str, Any]]  # (model, tokenizer) -> resources by name


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodingVariant:
    """One way to decode a batch of prompts.

    Attributes:
        name: label of the variant's row in the table.
        chain: text of the chain; None calls ``model.generate`` without a chain.
        streams: how `Call.generate` reads second streams; None hands the chain's processors to ``model.generate``.
        settings: further keyword arguments of `generate`.
        resources: function of (model, tokenizer) that makes the objects which the chain names. The key
            ``tokenizers`` holds the tokenizers of models among these objects. The keys ``model`` and ``tokenizer``
            replace the generating model and its tokenizer.
        requires: a processor without which the variant is left out; empty when there is no such processor.
        compiled: the forward is compiled during `generate`, so a clock on the model would compile it again.

    Examples:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> variant = DecodingVariant(name="guided", chain="cfg(1.5)", streams="lazy")
        >>> variant.run(tiny_model(), tiny_tokenizer(), ["a prompt"], {"max_new_tokens": 2}).startswith("lazy")
        True
    """

    name: str
    chain: str | None = None
    streams: Literal["auto", "fused", "lazy"] | None = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources | None = None
    requires: str = ""
    compiled: bool = False

    def make_resources(self, model: Any, tokenizer: Any) -> Mapping[str, Any]:
        """Return the objects that the chain names; called once, before any run is timed."""
        return self.resources(model, tokenizer) if self.resources else {}

    def run(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[str],
        settings: Mapping[str, Any],
        resources: Mapping[str, Any] | None = None,
    ) -> str:
        """Bind the chain, decode the prompts once, and return a note on streams, gates and extra forwards.

        Args:
            model, tokenizer: the generating model and its tokenizer.
            prompts: texts to continue.
            settings: keyword arguments of `generate`; the variant's own settings override them.
            resources: what `make_resources` returned.
        """
        settings, objects = {**settings, **self.settings}, dict(resources or {})
        for resource in objects.values():
            if isinstance(resource, ByteModel):
                resource.release()  # a kept cache would make this round too fast
        model, tokenizer = objects.pop("model", model), objects.pop("tokenizer", tokenizer)
        tokenizers = dict(objects.pop("tokenizers", {}))
        tokenizers |= {name: tokenizer for name, value in objects.items() if value is model}
        chain = Chain(self.chain or "")
        call = bind(
            chain, model, tokenizer, list(prompts), trace=False, tokenizers=tokenizers, resources=objects, warn=False
        )
        replaced = {setting for spec in call.chain.specs for setting in spec.replaces}  # the chain itself gives these
        settings = {key: value for key, value in settings.items() if key not in replaced}
        if self.chain is None:
            model.generate(**call.inputs, **settings)
            return ""
        if call.search is not None:  # it decides whether tokens are drawn
            call.generate(**{key: value for key, value in settings.items() if key != "do_sample"})
            report = call.trace.search
            return "" if report is None else f"{report.forwards} forwards, {report.tokens} tokens read"
        if self.streams is None:
            model.generate(**call.inputs, logits_processor=call.processors, **settings)
            return ""
        call.generate(streams=self.streams, **settings)
        return _trace_note(call.trace)


def _trace_note(trace: Trace) -> str:
    """Summarise a trace in one line: fusing of streams, share of fired gates, extra forwards per step."""
    parts = [] if trace.fusion.state == "none" else [str(trace.fusion)]
    parts += [f"fired on {share:.2f} of rows" for share in trace.fired.values()]
    extra = {name: count / trace.calls for name, count in trace.forwards.items() if count}
    return "; ".join(parts + [f"{name} read alone at {share:.2f} of steps" for name, share in extra.items()])


def example_variant(name: str) -> DecodingVariant:
    """Return the variant that runs the example of a registered processor's Spec.

    Models that the example names are the generating model itself.

    Examples:
        >>> example_variant("contrastive").chain
        "contrastive(amateur='other')"
    """

    def resources(model: Any, tokenizer: Any) -> Mapping[str, Any]:
        spec = default_registry().describe(name)
        bound = example_of(spec, model=model, tokenizer=tokenizer, another=lambda _: model)
        named = {"model": bound.model, "tokenizer": bound.tokenizer, "tokenizers": dict(bound.tokenizers)}
        return {**named, **bound.resources}

    chain = FITTED.get(name) or default_registry().describe(name).example or name
    shown = textwrap.shorten(chain, width=80, placeholder=" ...")
    return DecodingVariant(name=shown, chain=chain, resources=resources, requires=name)


def code_table(model: Any, tokenizer: Any) -> Mapping[str, Any]:
    """Return n-gram counts of modules of the standard library, which every machine has."""
    table = importlib.import_module("logitkit.processors.ngram.table").NgramTable
    modules = ("argparse", "ast", "datetime", "inspect", "statistics", "tarfile", "typing", "zipfile")
    return {"code": table.train([inspect.getsource(importlib.import_module(name)) for name in modules], tokenizer)}


def two_byte_models(model: Any, tokenizer: Any) -> Mapping[str, Any]:
    """Return the model as two byte-level models; their tolerances differ, so that they share no cache."""
    first, second = (ByteModel(model, tokenizer, tolerance=tolerance) for tolerance in (1e-6, 2e-6))
    byte_tokenizer = importlib.import_module("logitkit.processors.byte_level.tokenizer").byte_tokenizer
    return {"model": first, "tokenizer": byte_tokenizer(), "second": second}


PLAIN = DecodingVariant(name="plain generate")
VARIANTS = (
    PLAIN,
    DecodingVariant(name="identity chain", chain="uscd(rho=0.0)", streams=None),
    DecodingVariant(name="transformers guidance_scale=1.5", settings={"guidance_scale": 1.5}),
    DecodingVariant(name="cfg(1.5), fused", chain="cfg(1.5)", streams="fused"),
    DecodingVariant(name="cfg(1.5), lazy", chain="cfg(1.5)", streams="lazy"),
    DecodingVariant(name="uscd()", chain="uscd()"),
    DecodingVariant(name="uscd(), lazy", chain="uscd()", streams="lazy"),
    DecodingVariant(name="uscd(gate=0.626)", chain="uscd(gate=0.626)"),
    DecodingVariant(name="uscd(gate=1.0)", chain="uscd(gate=1.0)"),
    DecodingVariant(
        name="ngram_style", chain="ngram_style(table='code')", resources=code_table, requires="ngram_style"
    ),
    DecodingVariant(
        name="byte_ensemble of two, bytes",
        chain="byte_ensemble(models=['second'])",
        resources=two_byte_models,
        requires="byte_ensemble",
    ),
)
# In the place of examples that quote another prompt than those of `measurement.PROMPTS`, or that let texts end early.
FITTED = {
    "cad": "cad(alpha=0.6, context='def ')",
    "choices": f"choices(options=['{'no ' * 1000}'])",
    "min_new_tokens": "min_new_tokens(1000000)",
}
EXAMPLES = ("ensemble", "core", "byte_boundary")  # processors whose Spec's example is a variant of its own


def variants() -> tuple[DecodingVariant, ...]:
    """Return all variants whose processors are registered: plain decoding first, processors of plugins last.

    Examples:
        >>> variants()[0].name
        'plain generate'
    """
    registry = default_registry()
    names = registry.names()
    known = tuple(variant for variant in VARIANTS if not variant.requires or variant.requires in names)
    of_plugins = [name for name in names if registry.describe(name).plugin != "logitkit"]
    return known + tuple(example_variant(name) for name in [*EXAMPLES, *of_plugins] if name in names)


def select_variants(parts: Sequence[str]) -> tuple[DecodingVariant, ...]:
    """Return plain decoding and the variants whose name contains one of ``parts``; all variants without parts.

    A part that is the name of a registered processor, search or selector without a variant selects the example of its
    Spec.

    Raises:
        UnknownNameError: a part that no name contains.

    Examples:
        >>> [variant.name for variant in select_variants(["identity"])]
        ['plain generate', 'identity chain']
        >>> [variant.name for variant in select_variants(["contrastive"])]
        ['plain generate', "contrastive(amateur='other')"]
    """
    every, registered = variants(), default_registry().names(None)
    for part in parts:
        if not any(part in variant.name for variant in every):
            if part not in registered:
                known = [*(variant.name for variant in every), *registered]
                raise UnknownNameError("decoding variant", part, known)
            every += (example_variant(part),)
    return tuple(v for v in every if v is PLAIN or not parts or any(part in v.name for part in parts))
