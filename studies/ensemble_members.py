"""The models of an ensemble study, loaded once and named as chains name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from logitkit import models


@dataclass(frozen=True, eq=False, kw_only=True)
class EnsembleMembers:
    """A main model and its helpers.

    Attributes:
        main: name of the main model.
        helpers: names of the helpers.
        loaded: model and tokenizer of every member, by name.
        resources: the helpers' models as ``helper0``, ``helper1`` and so on, for `Chain.bind`.
        tokenizers: the helpers' tokenizers under the same names.
    """

    main: str
    helpers: Sequence[str]
    loaded: dict[str, tuple[Any, Any]]
    resources: dict[str, Any]
    tokenizers: dict[str, Any]

    @classmethod
    def load(cls, main: str, helpers: Sequence[str]) -> EnsembleMembers:
        """Load a main model and its helpers."""
        loaded = {name: models.load(name) for name in [main, *helpers]}
        return cls(
            main=main,
            helpers=helpers,
            loaded=loaded,
            resources={f"helper{number}": loaded[name][0] for number, name in enumerate(helpers)},
            tokenizers={f"helper{number}": loaded[name][1] for number, name in enumerate(helpers)},
        )

    @property
    def half_weights(self) -> list[float]:
        """Weights of the members with which the main model has half of the total weight."""
        return [1.0, *[1 / len(self.helpers)] * len(self.helpers)]
