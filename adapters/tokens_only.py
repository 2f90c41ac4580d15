"""A chain where there are only tokens and scores: another engine hands a processor no model.

Warpers, penalties, constraints and n-gram styles need nothing else. What reads the text a second time is refused
with the reason, before anything is generated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import torch

from logitkit.errors import ModeError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.trace import Trace
from logitkit.processors.ngram.table import NgramTable
from logitkit.registry.chain import Chain
from logitkit.registry.spec import Spec


class NoModel:
    """In the place of the generating model: what little is known of it; asking for more is refused."""

    def __init__(self, engine: str, ends: Sequence[int]) -> None:
        self._engine = engine
        self.generation_config = SimpleNamespace(eos_token_id=list(ends) or None)
        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModeError(f"{self._engine} hands a processor tokens and scores, not its model ({name})")


class TokensOnly(Binding):
    """What a processor may ask for in another engine: the tokenizer, one prompt, and tables.

    Args:
        engine: whose name errors bear.
        tokenizer: of the generating model.
        prompt: token ids of the prompt.
        ends: the model's end tokens.
        tables: n-gram tables by the name that the chain calls them.
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
        """Refuse: a second reading needs the generating model, or another one."""
        raise ModeError(f"{self.engine} hands a processor tokens and scores, not a model that reads {label}")

    def foreign_reader(self, *_: Any, label: str = "other model", **__: Any) -> NoReturn:
        """Refuse: as `reader`."""
        self.reader(label=label)

    def model_named(self, name: str) -> NoReturn:
        """Refuse: there is room for one model."""
        self.reader(label=f"along as {name!r}")


def check(chain: Chain, engine: str) -> None:
    """Refuse a chain that needs more than tokens and scores, and one whose files are missing.

    Raises:
        ModeError: with the processor and the reason.
        FileFormatError: no such table, or a broken one.
    """
    for spec in chain.specs:
        if spec.rewrites_prompt:
            raise _refused(spec, engine, "it changes the prompt, which the engine has read by then")
        if spec.extra_forwards != "none":
            raise _refused(
                spec,
                engine,
                f"beyond the engine's own forwards it needs {spec.cost}, and a processor is handed no model there",
            )
    tables(chain)


def bound(chain: Chain, engine: str, tokenizer: Any, prompt: Sequence[int], *, ends: Sequence[int] = ()) -> Composite:
    """Return the chain as one processor of rows that begin with this prompt.

    Raises:
        ModeError: it needs more than tokens and scores.
        ModelError: a table that was counted with another tokenizer.
    """
    binding = TokensOnly(engine, tokenizer, prompt, ends=ends, tables=tables(chain))
    parts: list[tuple[str, Any]] = []
    for spec, (name, parameters) in zip(chain.specs, chain.steps, strict=True):
        try:
            parts.append((name, spec.build(binding.after(parts), parameters)))
        except ModeError as error:
            raise _refused(spec, engine, str(error)) from error
    return Composite(parts, prompts=binding.prompts, trace=Trace(), histories=binding.histories)


def tables(chain: Chain) -> dict[str, NgramTable]:
    """The n-gram tables that a chain names, each read once a process."""
    return {name: _table(name) for name in chain.table_names}


@functools.lru_cache(maxsize=32)
def _table(name: str) -> NgramTable:
    return NgramTable.load(name)


def _refused(spec: Spec, engine: str, why: str) -> ModeError:
    """The refusal of one processor."""
    return ModeError(f"{spec.name}: cannot run in {engine}: {why}; run it with transformers' generate")
