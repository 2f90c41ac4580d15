"""Models and tables that a chain names, loaded once for all calls that are bound to the chain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from logitkit import models
from logitkit.processors.ngram import NgramTable
from logitkit.registry.chain import Chain


@dataclass(frozen=True, eq=False, kw_only=True)
class Preloaded:
    """What `preload` has loaded; `bind` takes ``kept=preloaded.tables`` and ``load=preloaded.load``.

    Attributes:
        models: model and tokenizer by name.
        tables: n-gram tables by name.

    >>> Preloaded(models={"large": ("a model", "its tokenizer")}).load("large", like=None)
    ('a model', 'its tokenizer')
    """

    models: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    tables: Mapping[str, NgramTable] = field(default_factory=dict)

    def load(self, name: str, *, like: Any) -> tuple[Any, Any]:
        """Return a model and its tokenizer, loaded before or, under an unknown name, now."""
        return self.models.get(name) or models.load(name, like=like)


def preload(chain: Chain, *, like: Any, known: Collection[str] = ()) -> Preloaded:
    """Load the models and tables that a chain names.

    Args:
        chain: the chain.
        like: the generating model, whose dtype and device the models get.
        known: names of objects that the caller has.

    Raises:
        MissingPackageError: a package that an extra installs is absent.
        UnknownNameError: a model of no known name.
        FileFormatError: an n-gram table is absent or broken.
        ModelError: a folder without a model.

    >>> from logitkit.registry.laws import tiny_model
    >>> preload(Chain("contrastive(amateur='small')"), like=tiny_model(), known=["small"]).models
    {}
    """
    chain.require_packages()
    named = {name: models.load(name, like=like) for name in chain.model_names if name not in known}
    tables = {name: NgramTable.load(name) for name in chain.table_names if name not in known}
    return Preloaded(models=named, tables=tables)
