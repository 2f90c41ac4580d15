"""Bindings: the objects that a processor can request when a chain is bound to the prompts of one call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.cross_tokenizer_reader import CrossTokenizerReader
from logitkit.processors.engine.history import History
from logitkit.processors.engine.prompt_inputs import refuse_missed
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.reader_choice import carried_inputs, new_reader
from logitkit.processors.engine.shared_vocabulary import SharedIdsModel, SharedVocabulary, check_prompts, lacking_tokens
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import end_tokens, vocabulary_size
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.token_agreement import TokenAgreement, stated_tokenizer
from logitkit.processors.tokens.vocabulary import vocabulary_of


class Binding:
    """Model, tokenizer and prompts of one call, and the second streams that its processors share.

    A processor class with ``bind(cls, binding, *, ...)`` is built from a binding. The binding provides second streams
    (`reader`, `foreign_reader`), a `History`, and objects that the caller passed by name.

    Args:
        model: the generating model.
        tokenizer: its tokenizer.
        prompts: the prompts of the call.
        resources: objects that the caller passed to ``chain.bind`` by name.
        tokenizers: tokenizers of named models.
        trace: receives what processors report.
        load: ``load(name, like=model)`` loads a model and its tokenizer; None: models among ``resources`` alone.
        cache: folder for results computed from models and used again, such as alignments; None: none are kept.

    Attributes:
        has_model: whether ``model`` can compute logits; False where another engine hands over scores alone.
        used: names of the resources that processors requested.
        no_effect: by step, why it can change no score for these prompts, and the way out; `bind` fills it.
        preceding: the steps before the one that is built, ``(name, processor)``.
        model_steps: numbers of those steps that name other models; known where a search or a selector is built.
        histories: each requested `History`, by the number of steps that precede its step.
        vocabulary: makes the ids impossible that some model of the call does not share with the generating model.

    Example:
        >>> from logitkit.processors.engine import Binding, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> prompts = read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> binding = Binding(tiny_model(), tiny_tokenizer(), prompts, resources={"large": tiny_model(1)})
        >>> second_prompt = binding.reader([tiny_tokenizer()("another prompt")["input_ids"]])
        >>> large = binding.model_with_same_vocabulary("large", "my_processor")
        >>> binding.reader(binding.own_prompts(), large, label="large")(prompts.ids).shape
        torch.Size([1, 272])
    """

    has_model, model_steps = True, frozenset[int]()

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Prompts,
        *,
        resources: Mapping[str, Any] | None = None,
        tokenizers: Mapping[str, Any] | None = None,
        trace: Trace | None = None,
        load: Callable[..., tuple[Any, Any]] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prompts = model, tokenizer, prompts
        self.resources, self._tokenizers = dict(resources or {}), dict(tokenizers or {})
        self.trace, self._load, self.cache = trace or Trace(), load, cache
        self._settings, self.vocabulary = CallSettings(model, prompts), SharedVocabulary()
        self.used: set[str] = set()
        self.no_effect: dict[str, tuple[str, str]] = {}
        self.histories: dict[int, History] = {}
        self._narrowed: dict[int, SharedIdsModel] = {}  # by the id of a model that lacks ids of the generating model
        self._loaded: dict[str, Any] = {}
        self._readers: dict[tuple[Any, ...], Any] = {}
        self.preceding: tuple[tuple[str, Any], ...] = ()

    def reader(
        self,
        own: Sequence[Sequence[int]],
        model: Any = None,
        *,
        label: str = "second prompt",
        inputs: Mapping[str, Any] | None = None,
    ) -> Reader:
        """Return the stream of a model under prompts of its own.

        Processors of one chain that ask for the same model and prompts share one reader and its forwards.

        Args:
            own: token ids of the stream's prompts, one list for each prompt of the call.
            model: a model with the tokenizer of the generating model; None: the generating model.
            label: name of the stream in the trace.
            inputs: what its prompts hold besides tokens; None: what those of the call hold. Given, nothing is shared.

        Raises:
            ModelError: the number of prompts is wrong, one is empty, or the model takes no cache.
            ModeError: the prompts of the call hold inputs that this stream cannot read.
        """
        model = self.model if model is None else model
        key = id(model), tuple(tuple(ids) for ids in own), None if inputs is None else object()
        if key not in self._readers:
            carried = carried_inputs(self.prompts, own, model, label, like=self.model) if inputs is None else inputs
            narrowed = self._narrowed.get(id(model), model)
            self._readers[key] = new_reader(narrowed, own, self.prompts, carried, self._settings)
            self._add_to_trace(label, self._readers[key])
        return self._readers[key]  # type: ignore[no-any-return]

    def foreign_reader(
        self, own: Sequence[Sequence[int]], model: Any, tokenizer: Any, *, label: str = "other model"
    ) -> CrossTokenizerReader:
        """Return the stream of a model with another tokenizer, in the vocabulary of that model; shared as in `reader`.

        Args:
            own: the stream's prompts as token ids of ``tokenizer``, one list for each prompt of the call.
            model: the other model.
            tokenizer: its tokenizer.
            label: name of the stream in the trace and in errors.

        Raises:
            ModelError: the model has an encoder, no cache, or a state that cannot be rewound.
            ModeError: the prompts of the call hold inputs besides tokens.
        """
        refuse_missed(self.prompts.inputs, label, "since it reads text alone; leave them out")
        key = id(model), tuple(tuple(ids) for ids in own), "foreign"
        if key not in self._readers:
            source, target = vocabulary_of(self.model, self.tokenizer), vocabulary_of(model, tokenizer)
            retokenize = Retokenizer(source, tokenizer, target)
            self._readers[key] = CrossTokenizerReader(model, own, self.prompts, retokenize, label=label)
            self._add_to_trace(label, self._readers[key])
        return self._readers[key]  # type: ignore[no-any-return]

    def made(self, reader: Any) -> bool:
        """Return whether this binding made the second stream."""
        return reader in self._readers.values()

    def _add_to_trace(self, label: str, reader: Any) -> None:
        """List a reader in the trace; a second reader of the same label gets a number."""
        namesakes = sum(name.split(" #")[0] == label for name in self.trace.readers)
        self.trace.readers[f"{label} #{namesakes + 1}" if namesakes else label] = reader

    def after(self, parts: Sequence[tuple[str, Any]]) -> Binding:
        """Return the binding of the next step of a chain, whose `history` covers the preceding steps.

        The returned binding shares readers, resources and trace with this one.

        Args:
            parts: the steps before it, as in ``preceding``.
        """
        step = copy.copy(self)
        step.preceding = tuple(parts)
        return step

    @property
    def settings(self) -> CallSettings:
        """What `generate` is told: end tokens, beams, the length of a row's prompt. Processors ask at every step."""
        self._settings.prompts = self.prompts  # a processor may have shortened the prompts since
        return self._settings

    @property
    def history(self) -> History:
        """Log-probabilities of the tokens already written, under the steps before the step that is being built.

        A processor keeps the object and calls it with rows: ``history(rows)`` returns nats, float64,
        ``[rows, continuation length]``. See `History`.
        """
        place = len(self.preceding)
        if place not in self.histories:
            self.histories[place] = self._new_history()
        return self.histories[place]

    def _new_history(self) -> History:
        """Return a history of the preceding steps; without a model it holds observed rows only."""
        settings: dict[str, Any] = {"trace": self.trace, "settings": self.settings}
        steps = [("shared vocabulary", self.vocabulary), *self.preceding]
        if not self.has_model:
            return History(self.prompts, steps, stream=None, **settings)
        captured = CapturedOutputs(self)
        return History(self.prompts, steps, stream=captured.reader, trusted=captured.computed, **settings)

    def own_prompts(self) -> list[list[int]]:
        """Return the token ids of the prompts of the call, without padding."""
        return [self.prompts.tokens(number) for number in range(len(self.prompts))]

    def one_text_per_prompt(self, owner: str, parameter: str, texts: str | Sequence[str]) -> Sequence[str]:
        """Return one text for each prompt of the call; a single text serves all prompts.

        Args:
            owner: the processor, for the error.
            parameter: the parameter that holds the texts, for the error.
            texts: one text, or one for each prompt.

        Raises:
            ParameterError: the number of texts is wrong, or a text is empty.
        """
        count = len(self.prompts)
        per_prompt = [texts] * count if isinstance(texts, str) else texts
        if len(per_prompt) != count or not all(per_prompt):
            raise ParameterError(owner, parameter, f"one text, or {count} (one a prompt), none empty", texts)
        return per_prompt

    def resource(self, name: str) -> Any:
        """Return the object that the caller passed to ``chain.bind`` under this name.

        Raises:
            UnknownNameError: nothing was passed under this name.
        """
        if name not in self.resources:
            raise UnknownNameError("resource", name, self.resources, f"pass it: chain.bind(..., {name}=...)")
        self.used.add(name)
        return self.resources[name]

    def model_named(self, name: str) -> Any:
        """Return the model that the caller passed under this name, else load it by catalogue name, hub id or folder.

        Raises:
            UnknownNameError: nothing was passed under this name, and the binding loads no models.
        """
        if name in self.resources:
            return self.resource(name)
        if name not in self._loaded:
            if self._load is None:
                raise UnknownNameError("resource", name, self.resources, f"pass it: chain.bind(..., {name}=model)")
            self._loaded[name], self._tokenizers[name] = self._load(name, like=self.model)
        return self._loaded[name]

    def tokenizer_named(self, name: str) -> Any:
        """Return the tokenizer of the model with this name.

        Raises:
            ModelError: no tokenizer was passed, and none can be loaded from the model's folder or hub id.
        """
        if name not in self._tokenizers:
            tokenizer = stated_tokenizer(self.model_named(name))
            if tokenizer is None:
                raise ModelError(
                    f"bind: model {name!r} must come with its tokenizer; "
                    f"pass bind(..., tokenizers={{{name!r}: tokenizer}})"
                )
            self._tokenizers[name] = tokenizer
        return self._tokenizers[name]

    def model_with_same_vocabulary(self, name: str, owner: str) -> Any:
        """Return the model with this name after a check that its ids mean what those of the generating model mean.

        `TokenAgreement` compares the tokenizers. Ids that only one of the two models can write become impossible in
        the chain and in readers of the model. Where no tokenizer of the model can be found, it counts as that of the
        generating model if the two vocabularies have one width.

        Args:
            name: as in `model_named`.
            owner: the processor, for the error.

        Raises:
            ModelError: an id stands for other text in the two models; or the widths of the vocabularies differ, and no
                tokenizer of the model can be found.
            PromptError: a prompt holds a token that the model lacks.
        """
        model = self.model_named(name)
        tokenizer = self._tokenizers.get(name) or stated_tokenizer(model)
        own, other = vocabulary_size(self.model), vocabulary_size(model)
        if tokenizer is None and own != other:
            raise ModelError(
                f"{owner}: model {name!r} must have the vocabulary of the generating model ({own} ids), got {other} "
                f"ids and no tokenizer; pass its tokenizer, bind(..., tokenizers={{{name!r}: tokenizer}})"
            )
        agreement = TokenAgreement.of((self.model, self.tokenizer), (model, tokenizer))
        agreement.check(owner, name, way_out="use the ensemble or bytes plugins")
        self.share_ids(model, agreement, f"{owner}: model {name!r}")
        return model

    def share_ids(self, model: Any, agreement: TokenAgreement, owner: str) -> None:
        """Make the ids impossible that a model does not share with the generating model; a notice names its tokens.

        Args:
            model: the other model; readers that are built from here on give no probability to these ids.
            agreement: of the generating model and this model.
            owner: processor and model, for the notice and the error.

        Raises:
            PromptError: a prompt holds a token that the model lacks.
        """
        if agreement.complete or id(model) in self._narrowed:
            return
        check_prompts(self.own_prompts(), agreement, owner)
        self.vocabulary.restrict(agreement.shared)
        self._narrowed[id(model)] = SharedIdsModel(model, agreement.shared)
        if agreement.lacking:
            self.trace.notices.append(f"{owner} {lacking_tokens(agreement, end_tokens(self.model))}")
