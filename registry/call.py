"""A chain bound to one generate call: inputs, one composite processor, and what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from transformers import LogitsProcessorList

from logitkit import models
from logitkit.errors import ModeError, ModelError, ParameterError, UnknownNameError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.fused_streams import FusedStreams, fusable_streams, obstacle
from logitkit.processors.engine.prompts import Prompts, pad_token, read_prompts
from logitkit.processors.engine.trace import FusionReport, Trace
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.registry.chain import Chain

# Settings of generate that run a warper of their own, and the value at which each does nothing.
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "top_h": None}
SAMPLING |= {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
PENALTIES = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": None}


@dataclass(frozen=True, eq=False, kw_only=True)
class Generation:
    """What `generate` returns: continuations as text and ids (prompt included, as transformers gives them)."""

    texts: list[str]
    ids: Tensor
    trace: Trace


class Call:
    """A chain, a model and the prompts of one generate call. May be used for several with the same prompts.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask`` for ``model.generate(**call.inputs, ...)``.
        processors: a `LogitsProcessorList` with one composite, for ``logits_processor=``.
        generate_kwargs: settings that `generate` needs so that nothing runs twice; `Call.generate` adds them.
        trace: what happened.
    """

    def __init__(self, chain: Chain, binding: Binding, user_prompts: Prompts, parts: Sequence[tuple[str, Any]]) -> None:
        self.chain, self.model, self.tokenizer = chain, binding.model, binding.tokenizer
        self.prompts, self.user_prompts, self.trace = binding.prompts, user_prompts, binding.trace
        self.inputs = {"input_ids": self.prompts.ids, "attention_mask": self.prompts.mask}
        owners = {spec.name: spec.owner for spec in chain.specs}
        self.composite = Composite(
            parts, prompts=self.prompts, trace=self.trace, owners=owners, histories=binding.histories
        )
        self.processors = LogitsProcessorList([self.composite])
        self.generate_kwargs = _owned_settings(chain) | _padding(binding.tokenizer, binding.model)

    def generate(self, *, streams: Literal["auto", "fused", "lazy"] = "auto", **kwargs: Any) -> Any:
        """Run ``model.generate`` with this call's inputs, processors and settings.

        Args:
            streams: how second prompts of the generating model are read: ``fused`` in its own forward, ``lazy``
                alone when they are asked, ``auto`` whichever is cheaper; ``trace.fusion`` says what was done.
                Results are the same. Fused, a returned output holds no cache.
            kwargs: anything `generate` takes; processors given here run after the chain.

        Raises:
            ModeError: a way of generating in which the chain would be ignored or wrong.
        """
        self._refuse_modes(kwargs)
        sampling = kwargs.get("do_sample", getattr(kwargs.get("generation_config"), "do_sample", None))
        sampling = self.model.generation_config.do_sample if sampling is None else sampling
        owned = {key: value for key, value in self.generate_kwargs.items() if sampling or key not in SAMPLING}
        extra = LogitsProcessorList(kwargs.pop("logits_processor", None) or [])
        settings = {"logits_processor": LogitsProcessorList([*self.processors, *extra]), **owned, **kwargs}
        fusion = self._fusion(streams, settings)
        if fusion is None:
            return self.model.generate(**self.inputs, **settings)
        with fusion:
            output = self.model.generate(**self.inputs, **{**settings, "past_key_values": fusion.cache})
        if not isinstance(output, Tensor):
            output.past_key_values = None  # it holds the rows of all streams
        return output

    def _fusion(self, streams: str, settings: Mapping[str, Any]) -> FusedStreams | None:
        """Second streams in the generating model's forward, where that is asked for and can be."""
        if streams not in ("auto", "fused", "lazy"):
            raise ParameterError("generate", "streams", "'auto', 'fused' or 'lazy'", streams)
        declared = self.composite.streams
        if not declared:
            self.trace.fusion = FusionReport(state="none", reason="the chain has no second stream")
            return None

        def setting(name: str) -> Any:
            configs = (settings.get("generation_config"), self.model.generation_config)
            values = (settings.get(name), *(getattr(config, name, None) for config in configs))
            return next((value for value in values if value is not None), None)

        rowwise = [name for name, value in settings.items() if isinstance(value, Tensor)]
        why = "asked for" if streams == "lazy" else obstacle(self.model, declared, self.prompts, setting)
        why = f"{rowwise[0]} is a tensor of the rows" if why is None and rowwise else why
        if why is None:
            readers = fusable_streams(self.model, declared)
            return FusedStreams(self.composite, self.model, readers, may_part=streams == "auto")
        self.trace.fusion = FusionReport(state="lazy", reason=why)
        if streams == "fused":
            raise ModeError(f"generate: streams cannot be 'fused', {why}; leave streams out")
        return None

    def texts(self, output: Any) -> list[str]:
        """Return the continuations as text, without the prompts and special tokens.

        Args:
            output: what ``model.generate`` returned: ids ``[rows, length]`` or an output with ``sequences``.

        Raises:
            ModeError: tokens were generated and the chain was never asked.
        """
        ids = self.ids(output)
        start = self.prompts.width
        if self.composite.parts and not self.trace.calls and ids.shape[1] > start + self.prompts.in_encoder:
            raise ModeError(
                "logitkit: the chain must be asked at every step, but generate never called it (continuous batching "
                "drops processors; so does leaving out logits_processor=call.processors); use call.generate(...)"
            )
        if any(self.prompts.removed):
            return self._texts_behind_the_cut(ids[:, start:])
        texts: list[str] = self.tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)
        return texts

    def _texts_behind_the_cut(self, ids: Tensor) -> list[str]:
        """Continuations without the bytes that were cut from their prompts, which they begin with."""
        vocabulary = Vocabulary.of(self.tokenizer)
        each = len(ids) // len(self.prompts)
        spelled = [vocabulary.join(number for number in row if number < len(vocabulary)) for row in ids.tolist()]
        cut = [len(self.prompts.removed[row // each]) for row in range(len(ids))]
        return [text[count:].decode(errors="replace") for text, count in zip(spelled, cut, strict=True)]

    @staticmethod
    def ids(output: Any) -> Tensor:
        """Token ids of what ``model.generate`` returned, ``[rows, length]``."""
        return output if isinstance(output, Tensor) else output.sequences

    def _refuse_modes(self, kwargs: Mapping[str, Any]) -> None:
        """Refuse what would drop the chain or run a warper twice."""
        if kwargs.get("cache_implementation") == "paged":
            raise ModeError(
                "logitkit: cache_implementation must not be 'paged', continuous batching drops processors; leave it out"
            )
        for name in ("inputs_embeds", "input_ids", "attention_mask", "inputs"):
            if name in kwargs:
                raise ModeError(
                    f"logitkit: {name} must not be given to generate, the prompts are bound; bind the chain to them"
                )
        for spec in self.chain.specs:
            for mode in _modes_of(kwargs):
                if mode in spec.modes:
                    raise ModeError(f"{spec.name}: cannot run under {mode}, {spec.modes[mode]}")
        owned = {name for spec in self.chain.specs for name in spec.replaces}
        twice = sorted(owned & {name for name, value in kwargs.items() if value is not None})
        if twice:
            raise ModeError(f"logitkit: {twice[0]} must be given once, got it in the chain and to generate; drop one")


def bind(
    chain: Chain,
    model: Any,
    tokenizer: Any,
    prompts: Any,
    *,
    trace: bool,
    tokenizers: Mapping[str, Any] | None,
    resources: Mapping[str, Any],
) -> Call:
    """Bind a chain; see `Chain.bind`."""
    _check_model(model)
    given = read_prompts(tokenizer, model, prompts)
    binding = Binding(
        model,
        tokenizer,
        given,
        resources=resources,
        tokenizers=tokenizers,
        trace=Trace(recording=trace),
        load=models.load,
        cache=models.cache_folder(),
    )
    for spec, (_, parameters) in zip(chain.specs, chain.steps, strict=True):
        if spec.rewrites_prompt:
            binding.prompts = spec.factory.prepare(binding, **parameters) or binding.prompts
    parts: list[tuple[str, Any]] = []
    for spec, (name, parameters) in zip(chain.specs, chain.steps, strict=True):
        parts.append((name, spec.build(binding.after(parts), parameters)))
    unused = sorted(set(resources) - binding.used)
    if unused:
        raise UnknownNameError("resource asked for by the chain", unused[0], binding.used, "no parameter names it")
    return Call(chain, binding, given, parts)


def _check_model(model: Any) -> None:
    """Refuse a model that cannot generate with a cache."""
    if not hasattr(model, "generate") or not hasattr(model, "generation_config"):
        raise ModelError(f"bind: model must be a transformers model with generate, got {type(model).__name__}")


def _owned_settings(chain: Chain) -> dict[str, Any]:
    """Neutral values for what the chain does itself: all sampling warpers if it has one, and its own penalties."""
    owned = {name for spec in chain.specs for name in spec.replaces}
    settings = {name: value for name, value in PENALTIES.items() if name in owned}
    return settings | (SAMPLING if owned & set(SAMPLING) else {})


def _padding(tokenizer: Any, model: Any) -> dict[str, Any]:
    """The documented default for a missing pad token: the end token pads."""
    return {} if model.generation_config.pad_token_id is not None else {"pad_token_id": pad_token(tokenizer, model)}


def _modes_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The ways of generating that these settings ask for."""
    modes = {
        "beams": (kwargs.get("num_beams") or 1) > 1,
        "assisted": kwargs.get("assistant_model") is not None,
        "prompt_lookup": kwargs.get("prompt_lookup_num_tokens") is not None,
        "static_cache": str(kwargs.get("cache_implementation", "")).startswith("static"),
    }
    return [mode for mode, asked in modes.items() if asked]
