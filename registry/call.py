"""A chain bound to one generate call: its inputs, one processor for the whole chain, and a trace."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor
from transformers.utils.generic import ModelOutput

from logitkit.errors import ModeError, ParameterError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.fused_streams import FusedStreams
from logitkit.processors.engine.fusion_obstacles import fusable_parts, obstacle
from logitkit.processors.engine.history import HistoryCache
from logitkit.processors.engine.model_depth import ModelDepth
from logitkit.processors.engine.model_forward import forwarding_model
from logitkit.processors.engine.processor_list import ChainInGenerate, GuardedList
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.row_check import RowCheck
from logitkit.processors.engine.trace import NO_STREAMS, FusionReport
from logitkit.processors.model_facts import logits_widths
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.processors.transformers_api import CACHE
from logitkit.registry.attached_generate import plain_generate
from logitkit.registry.call_drafts import with_drafts
from logitkit.registry.call_output import ids_of, refuse_output_without_chain, texts_after_removed_bytes
from logitkit.registry.call_search import bound_search, law_steps, running, with_stop_criterion
from logitkit.registry.chain import Chain
from logitkit.registry.extra_inputs import refuse_extra_inputs
from logitkit.registry.generate_settings import (
    UNSAMPLED,
    draws,
    owned_settings,
    padding_settings,
    refuse_settings,
    stated,
    without_stated_padding,
)
from logitkit.registry.no_effect import warn_of_greedy_decoding, warn_of_unused_sampling
from logitkit.registry.stop_strings import (
    NewBytesStop,
    refuse_ends_in_removed_bytes,
    with_new_bytes_stop,
    with_stop_strings,
)

Streams = Literal["auto", "fused", "lazy"]


class Call:
    """A chain, a model and the prompts of one generate call; made by `Chain.bind`.

    A call may generate several times from the same prompts, one generation after another. Several calls on one model
    may run in several threads at the same time.

    Attributes:
        chain, model, tokenizer: as bound.
        prompts: the prompts as the model reads them; a processor such as ``byte_boundary`` may have shortened them.
        user_prompts: the prompts as given.
        inputs: ``input_ids``, ``attention_mask`` and what else the prompts hold, such as ``pixel_values``, for
            ``model.generate(**call.inputs, ...)``. They may be narrower than an encoding that was given, when padding
            moved to the other side.
        composite: the chain as one processor, ``composite(input_ids, scores)``, for rows of any length.
        processors: a `LogitsProcessorList` of the chain, for ``logits_processor=``. Processors that ``append`` or
            ``+`` put behind the chain are followed by a check that they leave a token.
        search: the search and the selector of the chain, for ``custom_generate=``; None: the chain has neither.
        generate_kwargs: settings that `generate` needs besides, such as a padding token for a model without one, and
            neutral values for warpers that the chain replaces. `Call.generate` adds them. Those of a chain with a
            search hold ``do_sample=True``.
        trace: counters, and every step if bound with ``trace=True``.
        warns: whether `generate` gives a `NoEffectWarning` where greedy decoding makes the chain idle.

    >>> import logitkit
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> call = logitkit.chain("cfg(2.0)").bind(tiny_model(), tiny_tokenizer(), ["ab", "c"])
    >>> output = call.generate(max_new_tokens=3, do_sample=False)
    >>> output.shape, len(call.texts(output)), call.trace.calls
    (torch.Size([2, 5]), 2, 3)
    """

    def __init__(self, chain: Chain, binding: Binding, user_prompts: Prompts, parts: Sequence[tuple[str, Any]]) -> None:
        self.search = bound_search(chain, binding, parts)
        self.chain, self.model, self.tokenizer = chain, binding.model, binding.tokenizer
        self.prompts, self.user_prompts, self.trace = binding.prompts, user_prompts, binding.trace
        self.inputs = {"input_ids": self.prompts.ids, "attention_mask": self.prompts.mask, **self.prompts.inputs}
        owners = {spec.name: spec.owner for spec in chain.specs}
        self.composite = Composite(
            law_steps(parts, self.search),
            prompts=self.prompts,
            trace=self.trace,
            owners=owners,
            histories=binding.histories,
            settings=binding.settings,
            widths=logits_widths(binding.model),
            vocabulary=binding.vocabulary,
        )
        if not self.prompts.in_encoder:
            self.composite.row_check = RowCheck(self.prompts)
        if not self.composite.streams:
            self.trace.fusion = NO_STREAMS
        self.processors = GuardedList([ChainInGenerate(self.composite)])
        self._generating, self.settings = threading.Lock(), binding.settings
        self._histories, self.warns = binding.histories, True
        self.generate_kwargs = owned_settings(chain) | padding_settings(binding.tokenizer, binding.model)
        self.settings.tell(self.generate_kwargs)

    def generate(self, *, streams: Streams = "auto", **kwargs: Any) -> Any:
        """Run ``model.generate`` with the inputs, processors and settings of this call.

        Args:
            streams: how second prompts of the generating model are read. ``fused``: as further rows of the
                generating model's forward. ``lazy``: in forwards of their own, when a processor needs them.
                ``auto``: the cheaper of the two, measured. The results are the same; ``trace.fusion`` reports the
                choice. A fused output object holds no KV cache.
            kwargs: settings of ``model.generate``. Processors given here run after the chain.

        Returns:
            What ``model.generate`` returns: ids ``[rows, length]``, or an output object.

        Raises:
            ModeError: a setting under which the chain would be ignored or wrong; or a second `generate` of this call
                while the first one runs.
            ParameterError: an unknown value of ``streams``, or stop strings that are not texts.
        """
        refuse_settings(self.chain, kwargs, self.model)
        refuse_extra_inputs(self.model, self.prompts, self.trace.readers, kwargs)
        if not self._generating.acquire(blocking=False):
            raise ModeError(
                "generate: a Call must run one generate at a time, got a second one while the first one runs; "
                "bind a Call for each thread: chain.bind(model, tokenizer, prompts)"
            )
        try:
            with ModelDepth(self.model).kept():
                return self._generate(streams, kwargs)
        finally:
            self._generating.release()

    def _generate(self, streams: Streams, kwargs: dict[str, Any]) -> Any:
        """Complete the settings and run ``model.generate``; see `generate`."""
        sampling = kwargs.get("do_sample", getattr(kwargs.get("generation_config"), "do_sample", None))
        own = self.model.generation_config.do_sample or draws(self.chain)
        sampling = own if sampling is None else sampling
        # Without sampling transformers warns of any sampling setting, neutral or not.
        owned = {key: value for key, value in self.generate_kwargs.items() if sampling or key not in UNSAMPLED}
        owned = without_stated_padding(owned, kwargs)
        if self.warns and not sampling and self.search is None and (stated("num_beams", kwargs, self.model) or 1) == 1:
            warn_of_greedy_decoding(self.chain.specs)
        if self.warns and self.search is not None and not self.search.search.draws and kwargs.get("do_sample"):
            warn_of_unused_sampling(self.search.search.name)
        further = kwargs.pop("logits_processor", None) or []
        settings = {"logits_processor": self.processors + further, **owned, **kwargs}
        settings = with_stop_strings(settings, self.tokenizer)
        self._tell(settings)
        if any(self.prompts.removed) and settings.get("stop_strings"):
            criterion = NewBytesStop(
                Vocabulary.of(self.tokenizer), self.prompts.width, self.prompts.removed, settings["stop_strings"]
            )
            settings = with_new_bytes_stop(settings, criterion)
        if self.search is None:
            return self._run(streams, settings, greedy=not sampling)
        with running(self.search, settings, self.model, self.tokenizer) as settings:
            return self._run(streams, settings, greedy=False)

    def _run(self, streams: str, settings: dict[str, Any], *, greedy: bool) -> Any:
        """Run ``model.generate`` with settings that are complete, with fused streams where possible and cheaper."""
        fused = self._fused_streams(streams, settings)
        drafts, settings = with_drafts(self.composite, settings)
        with self.composite.reading_late(greedy), drafts.running():
            if fused is None:
                return plain_generate(self.model)(**self.inputs, **settings)
            fused.plan.drafts = drafts
            with fused:
                output = plain_generate(fused.view)(**self.inputs, **settings)
        if isinstance(output, ModelOutput):  # the cache holds the rows of all streams
            output = type(output)(**{name: value for name, value in output.items() if name != CACHE})
        return output

    def settings_for(self, **kwargs: Any) -> dict[str, Any]:
        """Return settings for a bare ``model.generate`` of this call, and let the steps of the chain know them.

        A processor does not learn what ``model.generate`` is told. Steps that depend on end tokens, on beams or on
        the decoder's prompt read the model's ``generation_config`` unless `generate` or this method tells them more.

        Args:
            kwargs: settings of ``model.generate``. With ``logits_processor``, the returned setting holds the chain,
                then these processors, then a check that they leave a token.

        Returns:
            ``generate_kwargs`` of the call, replaced by ``kwargs`` where both have a setting.

        Raises:
            ModeError, ParameterError: as in `generate`.

        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> call = logitkit.chain("min_new_tokens(4)").bind(tiny_model(), tiny_tokenizer(), "ab")
        >>> settings = call.settings_for(eos_token_id=7, max_new_tokens=5, do_sample=False)
        >>> output = tiny_model().generate(**call.inputs, logits_processor=call.processors, **settings)
        >>> 7 in output[0, 2:6].tolist()
        False
        """
        refuse_settings(self.chain, kwargs, self.model, bare=True)
        refuse_extra_inputs(self.model, self.prompts, self.trace.readers, kwargs)
        settings = with_stop_strings(without_stated_padding(self.generate_kwargs, kwargs) | kwargs, self.tokenizer)
        if kwargs.get("logits_processor"):
            settings["logits_processor"] = self.processors + kwargs["logits_processor"]
        self._tell(settings)
        return settings if self.search is None else with_stop_criterion(settings, self.tokenizer)

    def continuing(self) -> Call:
        """State that rows may continue the bound prompts with tokens that this call did not write; return the call.

        Without this statement, such rows in a bare ``model.generate`` give a `ContinuationWarning`: they may as well
        be longer prompts, to which the chain must be bound. A `generate` that continues its own output needs none.

        >>> import logitkit, torch
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> model, tokenizer = tiny_model(), tiny_tokenizer()
        >>> call = logitkit.chain("cfg(2.0)").bind(model, tokenizer, "ab").continuing()
        >>> rows = tokenizer("abc", return_tensors="pt")
        >>> model.generate(**rows, logits_processor=call.processors, max_new_tokens=2, do_sample=False).shape
        torch.Size([1, 5])
        """
        self.composite.row_check = None
        return self

    def _tell(self, settings: Mapping[str, Any]) -> None:
        """Let the steps of the chain know what `generate` is told."""
        start, mask = self.settings.start, self.settings.decoder_mask
        self.settings.tell(settings)
        refuse_ends_in_removed_bytes(self.tokenizer, self.settings.end_tokens(), self.prompts.removed)
        # What histories hold begins at another token, or was read under another mask.
        if self.settings.start != start or self.settings.decoder_mask is not mask:
            for history in self._histories.values():
                history.cache = HistoryCache()

    def _fused_streams(self, streams: str, settings: Mapping[str, Any]) -> FusedStreams | None:
        """Return the second streams that the generating model's forward computes, or None, and report the choice."""
        if streams not in get_args(Streams):
            raise ParameterError("generate", "streams", "'auto', 'fused' or 'lazy'", streams)
        declared = self.composite.streams
        if not declared:
            self.trace.fusion = NO_STREAMS
            return None

        setting = functools.partial(stated, settings=settings, model=self.model)
        tensors = [name for name, value in settings.items() if isinstance(value, Tensor)]
        reason = "requested" if streams == "lazy" else obstacle(self.model, declared, self.prompts, setting)
        if reason is None and tensors:  # it may have one entry per row, and a fused forward has more rows
            reason = f"{tensors[0]} is a tensor of the rows"
        if reason is None and getattr(plain_generate(self.model), "__func__", None) is not getattr(
            type(self.model), "generate", None
        ):
            reason = "a program replaced the generate of this model"
        if reason is None:
            parts, forwarding = fusable_parts(self.model, declared, setting), forwarding_model(self.model)
            if forwarding is not self.model:  # as the generate of PEFT does
                forwarding.generation_config = self.model.generation_config
            return FusedStreams(self.composite, forwarding, **parts._asdict(), may_separate=streams == "auto")
        self.trace.fusion = FusionReport(state="lazy", reason=reason)
        if streams == "fused":
            raise ModeError(f"generate: streams cannot be 'fused', {reason}; leave streams out")
        return None

    def texts(self, output: Any) -> list[str]:
        """Return the continuations as text, without prompts, special tokens and padding after an end token.

        Args:
            output: what ``model.generate`` returned: ids ``[rows, length]``, or an output object with ``sequences``.

        Returns:
            One text for each row.

        Raises:
            ModeError: tokens were generated without a call of the chain.
        """
        ids = self.ids(output)
        start = self.settings.start
        if ids.shape[1] > start:
            search_ran = None if self.search is None else self.search.log_weights is not None
            refuse_output_without_chain(len(self.composite.parts), self.trace.calls, search_ran)
        rows = [self.settings.without_padding(row) for row in ids[:, start:].tolist()]
        if any(self.prompts.removed):
            return texts_after_removed_bytes(self.tokenizer, self.prompts, rows)
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts

    @staticmethod
    def ids(output: Any) -> Tensor:
        """Return the token ids of an output of ``model.generate``, ``[rows, length]``, prompts included.

        Raises:
            ModeError: another shape, as continuous batching returns it.
        """
        return ids_of(output)
