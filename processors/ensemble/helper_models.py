"""Helper models of an ensemble, each with a reader under its own prompt and its own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from logitkit.errors import ModelError, ParameterError, PromptError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.chats import apply_template
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.streams import Stream
from logitkit.processors.model_facts import context_length, is_same_model
from logitkit.processors.tokens.token_agreement import TokenAgreement

PromptTexts: TypeAlias = str | list[str]  # one text for all prompts of the call, or one for each


@dataclass(frozen=True, eq=False, kw_only=True)
class HelperModel:
    """A helper model of a chain and its reader.

    Attributes:
        name: name of the model in the chain.
        model: the model.
        tokenizer: the model's tokenizer.
        read: from rows of main tokens ``[rows, length]`` to fp32 logits of the model, ``[rows, own vocab]``.
        needs_alignment: whether the tokenizer differs from the generating model's; one that differs by added tokens of
            the helper alone does not.
        is_main: whether the model is the generating model under the same prompts.

    >>> from logitkit.processors.engine import as_stream
    >>> helper = HelperModel(
    ...     name="same",
    ...     model=None,
    ...     tokenizer=None,
    ...     read=as_stream(lambda rows: rows),
    ...     needs_alignment=False,
    ...     is_main=True,
    ... )
    >>> helper.name, helper.needs_alignment
    ('same', False)
    """

    name: str
    model: Any
    tokenizer: Any
    read: Stream
    needs_alignment: bool
    is_main: bool


@dataclass(frozen=True, eq=False)
class BoundedStream:
    """A reader that raises a named error before a row is longer than the context of its model.

    Args:
        reader: the reader.
        prompts: the prompts of the call.
        context: greatest number of tokens of a row, the reader's own prompt included; None: no limit.
        label: name of the model, for the error.
    """

    reader: Reader
    prompts: Prompts
    context: int | None
    label: str
    fusable: bool = False

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the reader's logits, ``[rows, vocab]``.

        Raises:
            ModelError: the rows are longer than the context of the model.
        """
        self._check(rows)
        return self.reader(rows)

    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the reader's logits after each of the last ``count`` prefixes, ``[rows, count, vocab]``."""
        self._check(rows)
        return self.reader.positions(rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the reader's logits if any row wants them, else None without a forward."""
        self._check(rows)
        return self.reader.where(wanted, rows)

    def _check(self, rows: Tensor) -> None:
        """Raise ModelError where the rows are longer than the context of the model."""
        longest = self.reader.width + rows.shape[1] - self.prompts.width
        if self.context is not None and longest > self.context:
            raise ModelError(
                f"{self.label}: a row must be at most {self.context} tokens, its context, got {longest}; generate "
                "fewer tokens, shorten the prompt, or leave this model out"
            )


def find_helper_models(
    binding: Binding, owner: str, models: Sequence[str], prompts: Mapping[str, PromptTexts] | None = None
) -> list[HelperModel]:
    """Return the named models, each with a reader under its own prompt.

    A chat prompt is written in each model's own template, system prompt included. A text gets each model's own begin
    token. No model runs.

    Args:
        binding: the call.
        owner: name of the processor, for errors.
        models: names passed to `bind`, known models, hub ids or folders.
        prompts: own prompts of some models, by the model's name.

    Raises:
        ModelError: a model without a chat template for chat prompts, or without its tokenizer.
        ParameterError: prompts for a model that is not named, or of another number than the prompts of the call.
        PromptError: a prompt without tokens.
        UnknownNameError: no model of that name.

    >>> import logitkit
    >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
    >>> call = logitkit.chain("").bind(tiny_model(), tiny_tokenizer(), "a prompt")
    >>> binding = Binding(
    ...     tiny_model(),
    ...     tiny_tokenizer(),
    ...     call.prompts,
    ...     resources={"other": foreign_model()},
    ...     tokenizers={"other": foreign_tokenizer()},
    ... )
    >>> (helper,) = find_helper_models(binding, "ensemble", ["other"])
    >>> helper.needs_alignment, helper.read(call.prompts.ids).shape
    (True, torch.Size([1, 300]))
    """
    unnamed = sorted(set(prompts or {}) - set(models))
    if unnamed:
        raise ParameterError(owner, "prompts", f"given for models of the ensemble ({', '.join(models)})", unnamed[0])
    helpers = [_helper_model(binding, owner, name, (prompts or {}).get(name)) for name in models]
    report_no_effect(binding, owner, all(helper.is_main for helper in helpers))
    return helpers


def report_no_effect(binding: Binding, owner: str, alone: bool) -> None:
    """Report an ensemble that holds the generating model ``alone``, which a `NoEffectWarning` then names."""
    if alone:
        reason = "every model that it names is the generating model, under the same prompts"
        binding.no_effect[owner] = (reason, f"name other models, or leave {owner} out")


def _helper_model(binding: Binding, owner: str, name: str, texts: PromptTexts | None) -> HelperModel:
    """Return one named model with its reader."""
    model, tokenizer = binding.model_named(name), binding.tokenizer_named(name)
    agreement = TokenAgreement.of((binding.model, binding.tokenizer), (model, tokenizer))
    # A helper that reads the rows as they are makes tokens impossible that it lacks; an alignment keeps them.
    same_tokenizer = agreement.same_text and not agreement.lacking
    own = _own_prompts(binding, owner, name, tokenizer, texts, same_tokenizer)
    read: Stream
    if agreement.same_text and agreement.lacking:
        kept = agreement.shared.clone()
        kept[list(agreement.lacking)] = True  # only padding that the helper lacks becomes impossible
        binding.vocabulary.restrict(kept)
    if not same_tokenizer or model.config.is_encoder_decoder != binding.prompts.in_encoder:
        read = binding.foreign_reader(own, model, tokenizer, label=name)
        is_main = False
    else:
        binding.share_ids(model, agreement, f"{owner}: model {name!r}")
        context = None if binding.prompts.in_encoder else context_length(model)
        reader = binding.reader(own, model, label=name)
        read = BoundedStream(reader, binding.prompts, context, f"{owner}: model {name!r}")
        is_main = is_same_model(model, binding.model) and own == binding.own_prompts()
    return HelperModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        read=read,
        needs_alignment=not same_tokenizer,
        is_main=is_main,
    )


def _own_prompts(
    binding: Binding, owner: str, name: str, tokenizer: Any, texts: PromptTexts | None, same_tokenizer: bool
) -> list[list[int]]:
    """Return a model's own prompts as its token ids, one for each prompt of the call."""
    prompts = binding.prompts
    if texts is not None:
        every = [texts] * len(prompts) if isinstance(texts, str) else texts
        if len(every) != len(prompts) or not all(every):
            rule = f"one text, or {len(prompts)} (one a prompt), none empty"
            raise ParameterError(owner, f"prompts[{name!r}]", rule, texts)
        return [_encoded(owner, name, tokenizer, text) for text in every]
    if any(chat is not None for chat in prompts.messages):
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{owner}: model {name!r} must have a chat template to read chat messages; "
                f"give it a prompt of its own: prompts={{{name!r}: '...'}}"
            )
        chats = [apply_template(tokenizer, chat or (), prompts.template) for chat in prompts.messages]
        return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in chats]
    if prompts.adds_specials:
        return [_encoded(owner, name, tokenizer, text) for text in prompts.texts]
    own = binding.own_prompts()
    if same_tokenizer:
        return own
    binding.trace.notices.append(f"{owner}: model {name!r} reads the encoded prompts as text, without special tokens")
    return [_encoded(owner, name, tokenizer, binding.tokenizer.decode(ids, skip_special_tokens=True)) for ids in own]


def _encoded(owner: str, name: str, tokenizer: Any, text: str) -> list[int]:
    """Encode a text with the special tokens of a model.

    Raises:
        PromptError: the text has no tokens.
    """
    ids = list(tokenizer(text)["input_ids"])
    if not ids:
        raise PromptError(f"{owner}: the prompt of model {name!r} must have tokens, got {text!r}; give it text")
    return ids
