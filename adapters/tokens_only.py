"""Chains in engines that give a processor token ids and scores, but no model.

Warpers, penalties, constraints and n-gram styles need nothing else. A processor that needs extra forwards, or that
changes the prompt, is refused with the reason before anything is generated.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import torch

from logitkit.errors import ModeError, ParameterError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.chats import apply_template, is_chat
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.trace import Trace
from logitkit.processors.ngram.table import NgramTable
from logitkit.registry.chain import Chain
from logitkit.registry.spec import Spec

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]  # a text, token ids, or the messages of a chat


class NoModel:
    """Placeholder for the generating model of another engine: end tokens and a device; nothing else is available.

    Args:
        engine: name of the engine, for error messages.
        ends: end tokens of the model.
    """

    def __init__(self, engine: str, ends: Sequence[int]) -> None:
        self._engine = engine
        self.generation_config = SimpleNamespace(eos_token_id=list(ends) or None)
        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # copying and pickling look for optional methods
            raise AttributeError(name)
        raise ModeError(f"{self._engine} gives a processor tokens and scores, not its model ({name})")


class TokensOnly(Binding):
    """A `Binding` without a model: the tokenizer, one prompt, and n-gram tables.

    Args:
        engine: name of the engine, for error messages.
        tokenizer: of the generating model.
        prompt: token ids of the prompt.
        ends: end tokens of the model.
        tables: n-gram tables, by their names in the chain.
    """

    has_model = False

    def __init__(
        self, engine: str, tokenizer: Any, prompt: Sequence[int], *, ends: Sequence[int], tables: dict[str, NgramTable]
    ) -> None:
        ids = torch.tensor([list(prompt)], dtype=torch.long)
        prompts = Prompts(
            ids=ids,
            mask=torch.ones_like(ids),
            texts=(str(tokenizer.decode(list(prompt))),),
            messages=(None,),
            adds_specials=False,
        )
        self.engine = engine
        super().__init__(NoModel(engine, ends), tokenizer, prompts, resources=tables)

    def reader(self, *_: Any, label: str = "second prompt", **__: Any) -> NoReturn:
        """Refuse a second stream: it needs a model.

        Raises:
            ModeError: always.
        """
        raise ModeError(f"{self.engine} gives a processor tokens and scores, not a model to read the {label}")

    def foreign_reader(self, *_: Any, label: str = "text for another model", **__: Any) -> NoReturn:
        """Refuse a second stream of another model, as `reader` does."""
        self.reader(label=label)

    def model_named(self, name: str) -> NoReturn:
        """Refuse a second model."""
        self.reader(label=f"text for {name!r}")


def check(chain: Chain, engine: str) -> None:
    """Check, before anything is generated, that a chain can run on token ids and scores alone.

    Args:
        chain: the chain.
        engine: name of the engine, for error messages.

    Raises:
        ModeError: a processor needs extra forwards or changes the prompt; the message names the processor.
        FileFormatError: an n-gram table is absent or broken.

    >>> check(Chain("top_k(5)"), "vllm")
    >>> check(Chain("cfg()"), "vllm")
    Traceback (most recent call last):
    logitkit.errors.ModeError: cfg: cannot run in vllm: it needs extra forwards (one forward), and the engine gives a \
processor no model; run it with transformers' generate
    """
    for spec in chain.specs:
        if spec.kind != "processor":
            raise _refused(spec, engine, f"a {spec.kind} replaces the loop of the engine")
        if spec.rewrites_prompt:
            raise _refused(spec, engine, "it changes the prompt, which the engine has already read")
        if spec.extra_forwards != "none":
            raise _refused(
                spec, engine, f"it needs extra forwards ({spec.cost}), and the engine gives a processor no model"
            )
    tables(chain)


def bound(chain: Chain, engine: str, tokenizer: Any, prompt: Sequence[int], *, ends: Sequence[int] = ()) -> Composite:
    """Return a chain as one processor for rows that begin with a prompt.

    Args:
        chain: the chain.
        engine: name of the engine, for error messages.
        tokenizer: of the generating model.
        prompt: token ids.
        ends: end tokens of the model.

    Raises:
        ModeError: a processor asks for a model.
        ModelError: an n-gram table was counted with another tokenizer.
    """
    binding = TokensOnly(engine, tokenizer, prompt, ends=ends, tables=tables(chain))
    parts: list[tuple[str, Any]] = []
    for spec, (name, parameters) in zip(chain.specs, chain.steps, strict=True):
        try:
            parts.append((name, spec.build(binding.after(parts), parameters)))
        except ModeError as error:
            raise _refused(spec, engine, str(error)) from error
    return Composite(parts, prompts=binding.prompts, trace=Trace(), histories=binding.histories)


def prompt_ids(engine: str, tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the token ids of a prompt.

    Args:
        engine: name of the engine, for error messages.
        tokenizer: of the generating model.
        prompt: a text, token ids, or the messages of a chat.

    Raises:
        ParameterError: there are no tokens.
        ModelError, PromptError: a chat, and a tokenizer without a template or with one that refuses it.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> prompt_ids("vllm", tiny_tokenizer(), "ab")
    [64, 65]
    """
    chat: Any = prompt
    if isinstance(prompt, str):
        ids = list(tokenizer(prompt)["input_ids"])
    elif is_chat(prompt):
        ids = list(tokenizer(apply_template(tokenizer, chat), add_special_tokens=False)["input_ids"])
    else:
        ids = [int(token) for token in chat]
    if not ids:
        raise ParameterError(engine, "prompt", "a text, token ids or a chat with at least one token", prompt)
    return ids


def tables(chain: Chain, known: Collection[str] = ()) -> dict[str, NgramTable]:
    """Return the n-gram tables that a chain names, apart from known names; each file is read once per process."""
    return {name: _table(name) for name in chain.table_names if name not in known}


@functools.lru_cache(maxsize=32)
def _table(name: str) -> NgramTable:
    return NgramTable.load(name)


def _refused(spec: Spec, engine: str, reason: str) -> ModeError:
    """Return the error that refuses one processor."""
    return ModeError(f"{spec.name}: cannot run in {engine}: {reason}; run it with transformers' generate")
