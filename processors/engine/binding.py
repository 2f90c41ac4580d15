"""What a processor may ask for when a chain is bound to one generate call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.cross_tokenizer_reader import CrossTokenizerReader
from logitkit.processors.engine.encoder_decoder_reader import EncoderDecoderReader
from logitkit.processors.engine.history import History
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.vocabulary import vocabulary_of


class Binding:
    """Model, tokenizer and prompts of one call, and the readers that its processors share.

    Attributes:
        model: the generating model.
        tokenizer: its tokenizer.
        prompts: the prompts of the call.
        trace: where processors note what they did.
        resources: objects the caller passed to `bind` by name.
        has_model: whether ``model`` can compute logits; False where another engine hands over scores alone.
        histories: the `History` of each step that asked for one, by the number of steps before it.

    Args:
        load: loads (model, tokenizer) by known name, hub id or folder, ``like`` another model.
        cache: folder for what is computed from models and used again, such as alignments; None: nothing is kept.
    """

    has_model = True

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
        self.trace = trace or Trace()
        self._load, self.cache = load, cache
        self.used: set[str] = set()
        self._loaded: dict[str, Any] = {}
        self._readers: dict[tuple[int, tuple[tuple[int, ...], ...]], Any] = {}
        self._preceding: tuple[tuple[str, Any], ...] = ()
        self.histories: dict[int, History] = {}

    def reader(self, own: Sequence[Sequence[int]], model: Any = None, *, label: str = "second prompt") -> Reader:
        """Return the reader of ``model`` (the generating one by default) under its own prompts.

        Processors of one chain that ask for the same model and prompts share one reader and its forwards.

        Args:
            own: token ids of its prompt, one list for each prompt of the call.
            model: another model with the same tokenizer.
            label: its name in the trace.
        """
        model = self.model if model is None else model
        key = id(model), tuple(tuple(ids) for ids in own)
        if key not in self._readers:
            kind = EncoderDecoderReader if model.config.is_encoder_decoder else Reader
            self._readers[key] = kind(model, own, self.prompts)
            self._count(label, self._readers[key])
        return self._readers[key]  # type: ignore[no-any-return]

    def foreign_reader(
        self, own: Sequence[Sequence[int]], model: Any, tokenizer: Any, *, label: str = "other model"
    ) -> CrossTokenizerReader:
        """Return the reader of a model with another tokenizer, in its own vocabulary; shared as in `reader`.

        Args:
            own: its own prompts, as its own token ids, one list for each prompt of the call.
            model, tokenizer: the other model.
            label: its name in the trace and in errors.
        """
        key = id(model), tuple(tuple(ids) for ids in own)
        if key not in self._readers:
            source, target = vocabulary_of(self.model, self.tokenizer), vocabulary_of(model, tokenizer)
            retokenize = Retokenizer(source, tokenizer, target)
            self._readers[key] = CrossTokenizerReader(model, own, self.prompts, retokenize, label=label)
            self._count(label, self._readers[key])
        return self._readers[key]  # type: ignore[no-any-return]

    def _count(self, label: str, reader: Any) -> None:
        """Show a reader's forwards in the trace; a label that is taken gets a number."""
        taken = sum(name.split(" #")[0] == label for name in self.trace.readers)
        self.trace.readers[f"{label} #{taken + 1}" if taken else label] = reader

    def after(self, parts: Sequence[tuple[str, Any]]) -> Binding:
        """Return the binding of the next step of a chain, whose `history` covers the preceding steps ``parts``.

        Everything else is shared with this binding.
        """
        step = copy.copy(self)
        step._preceding = tuple(parts)
        return step

    @property
    def history(self) -> History:
        """The log-probabilities of the tokens already written, under the steps before the one that is being built.

        A processor keeps the object and calls it: ``history(rows)`` returns nats, ``[rows, continuation length]``.
        """
        place = len(self._preceding)
        if place not in self.histories:
            self.histories[place] = self._new_history()
        return self.histories[place]

    def _new_history(self) -> History:
        """Build the history of this step; without a model it holds observed rows only."""
        if not self.has_model:
            return History(self.prompts, self._preceding, stream=None, trace=self.trace)
        captured = CapturedOutputs(self)
        return History(
            self.prompts, self._preceding, stream=captured.reader, trusted=captured.computed, trace=self.trace
        )

    def own_prompts(self) -> list[list[int]]:
        """Token ids of the call's own prompts, without padding."""
        return [self.prompts.tokens(number) for number in range(len(self.prompts))]

    def one_text_per_prompt(self, owner: str, parameter: str, texts: str | Sequence[str]) -> Sequence[str]:
        """One text for each prompt: a single one is shared.

        Raises:
            ParameterError: another number of texts than prompts.
        """
        count = len(self.prompts)
        every = [texts] * count if isinstance(texts, str) else texts
        if len(every) != count or not all(every):
            raise ParameterError(owner, parameter, f"one text, or {count} (one a prompt), none empty", texts)
        return every

    def resource(self, name: str) -> Any:
        """Return what the caller passed to `bind` under this name.

        Raises:
            UnknownNameError: nothing was passed under it.
        """
        if name not in self.resources:
            raise UnknownNameError("resource", name, self.resources, f"pass it: chain.bind(..., {name}=...)")
        self.used.add(name)
        return self.resources[name]

    def model_named(self, name: str) -> Any:
        """Return the model passed to `bind` under this name, else load it by hub id, known name or folder."""
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
            ModelError: none was passed, and the model does not say where it came from.
        """
        if name not in self._tokenizers:
            origin = getattr(self.model_named(name), "name_or_path", "")
            if not origin:
                raise ModelError(
                    f"bind: model {name!r} must come with its tokenizer; "
                    f"pass bind(..., tokenizers={{{name!r}: tokenizer}})"
                )
            from transformers import AutoTokenizer

            self._tokenizers[name] = AutoTokenizer.from_pretrained(origin)
        return self._tokenizers[name]

    def model_with_same_vocabulary(self, name: str, owner: str) -> Any:
        """Return the model with this name, having made sure that it shares the generating model's tokenizer.

        Raises:
            ModelError: another vocabulary.
        """
        model = self.model_named(name)
        known = name in self._tokenizers or bool(getattr(model, "name_or_path", ""))
        if known and self.tokenizer_named(name).get_vocab() != self.tokenizer.get_vocab():
            raise ModelError(
                f"{owner}: model {name!r} must have the tokenizer of the generating model; "
                "use the ensemble or bytes plugins"
            )
        sizes = [vocabulary_size(m) for m in (self.model, model)]
        if not known and sizes[0] != sizes[1]:
            raise ModelError(
                f"{owner}: model {name!r} must have the vocabulary of the generating model ({sizes[0]}), got {sizes[1]}"
            )
        return model
