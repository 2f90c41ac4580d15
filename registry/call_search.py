"""The search of a chain in a call, and the settings of `generate` under which it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteriaList
from transformers.generation.stopping_criteria import StopStringCriteria

from logitkit.processors.engine.binding import Binding
from logitkit.processors.searches.bound_search import BoundSearch
from logitkit.processors.searches.search import Sampling, Search
from logitkit.processors.searches.selector import Selector
from logitkit.registry.chain import Chain
from logitkit.registry.generate_settings import stated


def bound_search(chain: Chain, binding: Binding, parts: Sequence[tuple[str, Any]]) -> BoundSearch | None:
    """Return the search of a chain for one call; independent samples where it has a selector alone, None without both.

    Args:
        chain: the chain.
        binding: of the call.
        parts: the steps, ``(name, processor)``.
    """
    steps = [(spec, parameters) for spec, (_, parameters) in zip(chain.specs, chain.steps, strict=True)]
    last = binding.after(parts)
    last.model_steps = frozenset(
        place for place, (spec, parameters) in enumerate(steps) if spec.model_names(spec.filled(parameters))
    )
    built: dict[str, Any] = {
        spec.kind: spec.build(last, parameters) for spec, parameters in steps if spec.kind != "processor"
    }
    if not built:
        return None
    search: Search = built.get("search") or Sampling()
    selector: Selector | None = built.get("selector")
    return BoundSearch(
        search,
        selector,
        prompts=binding.prompts,
        settings=binding.settings,
        tokenizer=binding.tokenizer,
        trace=binding.trace,
    )


class Untouched(LogitsProcessor):
    """Stands in the law for a step that the search carries out itself; returns the scores as they are.

    >>> import torch
    >>> Untouched()(torch.tensor([[0]]), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    supports_continuous_batching = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores themselves, ``[rows, vocab]``."""
        return scores


def law_steps(parts: Sequence[tuple[str, Any]], search: BoundSearch | None) -> list[tuple[str, Any]]:
    """Return the steps of a chain that make the law of its search.

    Args:
        parts: the steps, ``(name, processor)``.
        search: the search of the chain; None: there is none.
    """
    taken = () if search is None else search.search.taken
    return [(name, Untouched() if any(part is step for step in taken) else part) for name, part in parts]


@contextmanager
def running(search: BoundSearch, settings: Mapping[str, Any], model: Any, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Yield settings of `generate` under which it prepares one row of each prompt and runs a search.

    The number of sequences, the streamer and the stop strings reach the search beside `generate`, which refuses several
    greedy sequences, would put each prompt to the streamer twice, and loses the tokenizer of stop strings.

    Args:
        search: the search; inside the block it knows the number of sequences and the streamer.
        settings: settings of `generate`.
        model, tokenizer: the generating model and its tokenizer.

    Raises:
        ModeError: a number of sequences that the search cannot return.
    """
    search.returned = stated("num_return_sequences", settings, model) or 1
    search.wanted(search.returned, bool(stated("do_sample", settings, model)))  # before an encoder reads the prompts
    search.streamer = settings.get("streamer")
    kept = {name: value for name, value in settings.items() if name != "streamer"}
    try:
        yield with_stop_criterion(kept | {"num_return_sequences": 1, "custom_generate": search}, tokenizer)
    finally:
        search.returned = search.streamer = None


def with_stop_criterion(settings: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return settings of `generate` in which a criterion takes the place of ``stop_strings``.

    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> sorted(with_stop_criterion({"stop_strings": "end", "max_new_tokens": 3}, tiny_tokenizer()))
    ['max_new_tokens', 'stopping_criteria']
    """
    stops = settings.get("stop_strings")
    if not stops:
        return settings
    criterion = StopStringCriteria(settings.get("tokenizer") or tokenizer, stops)
    criteria = StoppingCriteriaList([*(settings.get("stopping_criteria") or ()), criterion])
    kept = {name: value for name, value in settings.items() if name not in ("stop_strings", "tokenizer")}
    return kept | {"stopping_criteria": criteria}
