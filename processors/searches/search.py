"""Searches: loops above the step, as callables for ``generate(custom_generate=...)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.run import Found, SearchRun


class Search:
    """A way to find sequences under the law that processors define; subclasses write `search`.

    A search is a ``custom_generate`` callable of transformers. In a chain it stands after the steps, whose law it
    searches: ``temperature(0.8) | smc(particles=8)``.

    Attributes:
        name: of the search, in errors and in the trace.
        fuses: whether the search runs the model only through `Rows` and reads its logits alone, so that a forward may
            hold the rows of second streams besides.
        samples: whether the search draws tokens. A chain with such a search sets ``do_sample=True``.
        draws: whether the search draws tokens where ``do_sample`` is True.
        alike: whether the sequences of one prompt are equal where nothing is drawn. Several are then refused.
        drops: whether rows for which the steps leave no token are dropped. They end, as `Rows.lost`, and weigh 0. If
            not, such a row is an error.
        taken: steps of the chain that the search carries out itself, so that they are no part of the law.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> class Greedy(Search):
    ...     def search(self, run):
    ...         rows = run.rows(run.wanted)
    ...         while not rows.done:
    ...             rows.append(rows.law().argmax(-1))
    ...         return Found.of(rows)
    >>> ids, settings = tiny_tokenizer()("ab", return_tensors="pt").input_ids, {"max_new_tokens": 4, "pad_token_id": 0}
    >>> found = tiny_model().generate(ids, custom_generate=Greedy(), **settings)
    >>> torch.equal(found, tiny_model().generate(ids, do_sample=False, **settings))
    True
    """

    name: ClassVar[str] = "search"
    fuses: ClassVar[bool] = False
    samples: ClassVar[bool] = True
    draws: bool = True
    alike: ClassVar[bool] = False
    drops: ClassVar[bool] = False
    taken: Sequence[Any] = ()

    def sequences(self, wanted: int) -> int:
        """Return how many sequences of each prompt the search finds where ``wanted`` are to be returned.

        Raises:
            ModeError: the search cannot find so many.
        """
        return wanted

    def check(self, run: SearchRun) -> None:
        """Refuse settings under which the search would be wrong, before the first forward.

        Raises:
            ModeError: names the setting and the way out.
        """

    def search(self, run: SearchRun) -> Found:
        """Find `SearchRun.wanted` sequences, or more, of each prompt."""
        raise NotImplementedError

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        **model_kwargs: Any,
    ) -> Tensor:
        """Generate; `generate` calls this method with the arguments that it has prepared.

        Args:
            model: the generating model.
            input_ids: prompts, each ``num_return_sequences`` times, ``[prompts * num_return_sequences, length]``.
            logits_processor, stopping_criteria, generation_config: as prepared by `generate`.
            model_kwargs: arguments of the model's forward that `generate` has prepared.

        Returns:
            Prompts and continuations, ``[prompts * num_return_sequences, longer]``.

        Raises:
            ModeError: settings that a search cannot follow.
        """
        from logitkit.processors.searches.bound_search import BoundSearch

        return BoundSearch(self)(
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **model_kwargs,
        )


class Sampling(Search):
    """Independent samples of each prompt; what a selector without a search chooses from.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids = tiny_tokenizer()("ab", return_tensors="pt").input_ids
        >>> settings = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 4, "pad_token_id": 0}
        >>> tiny_model().generate(ids, custom_generate=Sampling(), **settings).shape[0]
        3
    """

    name = "sampling"
    fuses = True
    alike = True
    drops = True

    def search(self, run: SearchRun) -> Found:
        """Return independent samples; under ``do_sample=False`` the most probable token of each step."""
        rows = run.rows(run.wanted)
        particle = torch.arange(run.wanted, device=run.ids.device).repeat(run.prompts)
        seeds = run.seeds[rows.prompt]
        for step in range(run.max_new_tokens):
            law = rows.law()
            rows.append(draw(law, uniform(seeds, particle, step)) if run.sampling else law.argmax(-1))
            if rows.done:
                break
        return Found.of(rows)
